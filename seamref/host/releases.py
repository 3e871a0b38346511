"""The released TDX modules, measured: what their headers, hashes and Intel's mapping file say (BIN).

Nothing of Intel's files is stored here but these figures; tests compare them with the files where those are at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

from seamref.errors import SeamrefError


@dataclass(frozen=True, slots=True)
class Release:
    """One release.  ``None`` or 0 stands for what is not known of a release that only a mapping file names.

    ``date`` BCD as decimal digits; ``seamsvn`` major in the high byte; ``num_handoff_pages`` and
    ``num_global_data_pages`` as in the sigstruct (minus 1); ``pages`` of the image; ``blob_checksum`` of the
    published 1.0 file; ``cpuids`` CPUID.1:EAX; ``min_preserving``, ``min_seamldr``, ``features0`` from the mapping
    file; ``reserved3`` its first bytes.
    """

    version: str
    date: int = 0
    seamsvn: int = 0
    rip_offset: int = 0
    gdt_idt_offset: int = 0
    fault_wrapper_offset: int = 0
    num_handoff_pages: int = 0
    num_global_data_pages: int = 0
    pages: int = 0
    blob_checksum: int = 0
    cpuids: tuple[int, ...] = ()
    seamhash: str = ""
    min_preserving: str = ""
    min_seamldr: tuple[str, ...] = ()
    features0: int = 0
    reserved3: str = ""
    module_hv: int = 0
    min_update_hv: int = 0
    no_downgrade: int = 0
    debug_signed: bool = False

    @property
    def measured(self) -> bool:
        """Whether its files were looked at, not only a mapping file."""
        return bool(self.seamhash)

    @property
    def blob_size(self) -> int:
        """Bytes of the published 1.0 file."""
        return (self.pages + 2) * 4096


RELEASES: dict[str, Release] = {release.version: release for release in (
    Release("1.5.01", 20231008, 0x0104, 0x38E24, 0x5C000, 0x38F84, 13, 21, 102, 0xD229, (0x806F8, 0xC06F0),
            "9790d89a10210ec6968a773cee2ca05b5aa97309f36727a968527be4606fc19e6f73acce350946c9d46a9bf7a63f8430",
            "1.5.01", ("1.5.00",), 0xF0FBF, ""),
    Release("1.5.05", 20240129, 0x0105, 0x3922C, 0x5C000, 0x3938C, 13, 21, 102, 0x564C, (0x806F8, 0xC06F0, 0xA06F0),
            "1cc6a17ab799e9a693fac7536be61c12ee1e0fabada82d0c999e08ccee2aa86de77b0870f558c570e7ffe55d6d47fa04",
            "1.5.01", ("1.5.00", "2.0.00"), 0x61F0FBF, ""),
    Release("1.5.06", 20240407, 0x0106, 0x33B70, 0x5A000, 0x33CD0, 13, 21, 101, 0x06D5, (0x806F8, 0xC06F0, 0xA06F0),
            "5b38e33a6487958b72c3c12a938eaa5e3fd4510c51aeeab58c7d5ecee41d7c436489d6c8e4f92f160b7cad34207b00c1",
            "1.5.01", ("1.5.00", "2.0.00"), 0x2E1F0FBF, ""),
    Release("1.5.08", 20240725, 0x0107, 0x33D58, 0x5A000, 0x33EB8, 13, 21, 101, 0x86D5, (0x806F8, 0xC06F0, 0xA06F0),
            "49b66faa451d19ebbdbe89371b8daf2b65aa3984ec90110343e9e2eec116af08850fa20e3b1aa9a874d77a65380ee7e6",
            "1.5.01", ("1.5.00", "2.0.00"), 0x22E1F0FBF, ""),
    Release("1.5.09", 20240912, 0x0108, 0x35320, 0x60000, 0x35480, 13, 21, 109, 0x041D, (0x806F8, 0xC06F0, 0xA06F0),
            "bfb360ac8e6233a1bca1433caf7382d95c165b4a77fb00bf1435e5a08f300cdfead5ee68461afd9b6c728dce7534602d",
            "1.5.01", ("1.5.00", "2.0.00"), 0x26F1F0FBF, ""),
    Release("1.5.13", 20250207, 0x010A, 0x379DC, 0x4B000, 0x37B3C, 13, 21, 109, 0x73EE, (0x806F8, 0xC06F0, 0xA06F0),
            "27b67e0b20508f0acfb8a99df4283a7c86ae569d85d556a91d4eb20e56b5d42d5e65b31a3a6996e8e461f104f32fdeec",
            "1.5.01", ("1.5.00", "2.0.00"), 0x226F1F0FBF, ""),
    Release("1.5.16", 20250219, 0x010B, 0x3A35C, 0x50000, 0x3A4BC, 13, 21, 115, 0x56A7, (0x806F8, 0xC06F0, 0xA06F0),
            "7bf063280e94fb051f5dd7b1fc59ce9aac42bb961df8d44b709c9b0ff87a7b4df648657ba6d1189589feab1d5a3c9a9d",
            "1.5.01", ("1.5.00", "2.0.00"), 0x226F3F0FBF, ""),
    Release("2.0.02", 20240814, 0x0303, 0x47158, 0x76000, 0x472B8, 24, 33, 131, 0xF5B6, (0xA06D0,),
            "685f891ea5c20e8fa27b151bf34bf3b50fbaf7143cc53662727cbdb167c0ad8385f1f6f3571539a91e104a1c96d75e04",
            "2.0.02", ("2.0.00",), 0x22E1F0FBF, "02000002120300"),
    Release("2.0.04", 20250109, 0x0304, 0x4AB18, 0x78000, 0x4AC78, 24, 33, 134, 0xD97D, (0xA06D0, 0xA06E0),
            "64cae497e0c6221176fe8d3bc9d0cf25b4c97bb24cc16499f77102451f15bb24249f1aa3e5d3bf8897be74ad6c84e648",
            "2.0.04", ("2.0.00",), 0x12AF1F0FBF, "040000025b0308"),
    Release("2.0.05", 20250123, 0x0304, 0x4AAF8, 0x78000, 0x4AC58, 24, 33, 134, 0x6208, (0xA06D0, 0xA06E0),
            "6f65e570e3bc418d2576f31aada40f7f7ce1ea810f964aa9bc70066a89ac1fc6e0d6b76d3f86a16405172b2c3e078528",
            "2.0.04", ("2.0.00",), 0x226F3F0FBF, "050000025f0300"),
    Release("2.0.08", 20250325, 0x0305, 0x4F2F0, 0x69000, 0x4F450, 24, 33, 146, 0x6C81, (0xA06D0, 0xA06E0),
            "476a2997c62bccc78370913d0a80b956e3721b24272bc66c4d6307ced4be2865c40e26afac75f12df3425b03eb59ea7c",
            "2.0.04", ("2.0.00",), 0x32A71F0FBF, "08000002720300"),
)}
"""The eleven releases of intel/tdx-module-binaries, oldest first in each line."""


@dataclass(frozen=True, slots=True)
class Published:
    """What Intel's public release notes or a public log say of a release, whether its files were measured or not.

    ``build_date`` decimal YYYYMMDD and ``build_num`` as TDH.SYS.RD and the notes give them (0: not said);
    ``seamsvn`` major SVN in the high byte; ``mrseam`` SHA-384 in hex; ``min_seamldr`` loaders that the notes name;
    ``platform`` in words; ``source`` where the row is from.
    """

    version: str
    build_date: int = 0
    build_num: int = 0
    seamsvn: int = 0
    mrseam: str = ""
    min_seamldr: tuple[str, ...] = ()
    platform: str = ""
    source: str = ""


_SPR, _SRF, _GNR = "Sapphire Rapids, Emerald Rapids", "Sierra Forest", "Granite Rapids"
_BOTH = ("1.5.00", "2.0.00")


def _notes(version: str) -> str:
    return f"release notes, intel/confidential-computing.tdx.tdx-module tag TDX_MODULE_{version}"


def _published(version: str, date: int, num: int, seamsvn: int, mrseam: str, loaders: tuple[str, ...],
               platform: str) -> Published:
    return Published(version, date, num, seamsvn, mrseam, loaders, platform, _notes(version))


PUBLISHED: dict[str, Published] = {p.version: p for p in (
    _published("1.5.01", 20231008, 595, 0x0104, RELEASES["1.5.01"].seamhash, ("1.5.00",), _SPR),
    _published("1.5.05", 20240129, 698, 0x0105, RELEASES["1.5.05"].seamhash, _BOTH, f"{_SPR}, {_SRF}"),
    Published("1.5.06", 20240407, 744, source="a kernel log, canonical/tdx issue 381"),
    _published("1.5.08", 20240725, 784, 0x0107, RELEASES["1.5.08"].seamhash, _BOTH, f"{_SPR}, {_SRF}"),
    _published("1.5.13", 20250210, 864, 0x010A, RELEASES["1.5.13"].seamhash, _BOTH, f"{_SPR}, {_SRF}"),
    _published("1.5.16", 20250221, 869, 0x010B, RELEASES["1.5.16"].seamhash, _BOTH, f"{_SPR}, {_SRF}"),
    _published("1.5.20", 20250531, 920, 0x010C,
               "d0d80c085166ba78ccc69af268e5753cf0f3394523cb4ff7c50b08d9265c82489c099c377be6a400e4d2b57da924012c",
               _BOTH, f"{_SPR}, {_SRF}"),
    _published("1.5.24", 20250729, 943, 0x010D,
               "489e585f1c54bc5a02066c8c6ec21619ff0334ec6f21e07e2a35202c59183789c8057e7d97dd591bb08314b185819e72",
               ("1.5.00",), _SPR),
    _published("1.5.25", 20250902, 954, 0x010D,
               "fca4ff221293807e3d247416299ca39a236872df4eb414567ca96072d3fde7dead740f807eefe2f7d938499c03cc8aba",
               ("2.0.00",), _SRF),
    _published("1.5.28", 20251126, 989, 0x010E,
               "346bc77a1846cac214dd2e8edeb9ee4349449d6c3f9ff2c52149a634c27b7fd1bd314c2ef6b973eeebd55742952531a1",
               _BOTH, f"{_SPR}, {_SRF}"),
    _published("1.5.34", 20260330, 1024, 0x010F,
               "ab62561a173acbd18ee50ff37750db44184c6cf5e886df74247cc575e163b04c34b9e18374757c235affa614d4127f6b",
               _BOTH, f"{_SPR}, {_SRF}"),
    _published("2.0.02", 20240814, 786, 0x0303, RELEASES["2.0.02"].seamhash, ("2.0.00",), _GNR),
    _published("2.0.04", 20250116, 859, 0x0304, RELEASES["2.0.04"].seamhash, ("2.0.00",), _GNR),
    Published("2.0.05", 0, 863, source="bytes 1000 to 1023 of its sigstruct (inferred)"),
    _published("2.0.08", 20250402, 882, 0x0305, RELEASES["2.0.08"].seamhash, ("2.0.00",), _GNR),
    _published("2.0.12", 20250605, 924, 0x0306,
               "87bdf50356b95e264a5d0807016b9b8ab7568d0857d27eddbe847f98184a786e0f3eecf2fabd3b6d23f71f2ae50300f4",
               ("2.0.00",), _GNR),
    _published("2.0.14", 20260425, 947, 0x0307,
               "aef4ed3e686fe6cf44c9a8d1cc63105443b558ac4f40c282abf78271e9a4586c50408c8584c7b43fd21edb736700ba5f",
               ("2.0.00",), _GNR),
    _published("2.0.16", 20251204, 994, 0x0308,
               "f40772d82608da5443887dd7247be3e0092927e62409a9bb8da98eaed9017704be075466a13d3ca30501000d69407495",
               ("2.0.00",), _GNR),
    _published("2.0.18", 20260211, 1013, 0x0309,
               "2d2de102461684f14c8d0984a09d895e3e9e15944ce020a03b977e1f114d5e1ed32ef666a47fd19a5851b3800eda3afa",
               ("2.0.00",), f"{_GNR}, Clearwater Forest"),
)}
"""Releases by what is published of them.  The notes' build date may be some days later than the sigstruct's date."""

NOTED = tuple(p for version, p in PUBLISHED.items() if version not in RELEASES)
"""Releases whose notes are public and whose files were not measured: SVN known, handoff fields not."""


def known_release(version: str) -> Release | None:
    """All that is known of a version: measured, or from its notes (then without handoff fields and CPU table)."""
    noted = PUBLISHED.get(version)
    if version in RELEASES or noted is None:
        return RELEASES.get(version)
    return Release(version, noted.build_date, noted.seamsvn, min_seamldr=noted.min_seamldr)


PLATFORMS = {
    0x806F0: "Sapphire Rapids", 0xC06F0: "Emerald Rapids", 0xA06F0: "Sierra Forest", 0xA06D0: "Granite Rapids",
    0xA06E0: "Granite Rapids D",
}
"""CPUID.1:EAX without stepping; the pairing is inferred from release notes."""


def platform_name(fms: int) -> str:
    """What a CPUID.1:EAX is called, "" when this book has no name for it."""
    return PLATFORMS.get(fms & ~0xF, "")


def get_release(version: str) -> Release:
    """A release by version; an unknown one is an error that lists the known ones."""
    try:
        return RELEASES[version]
    except KeyError:
        raise SeamrefError(f"no measured release {version!r}; there are {', '.join(RELEASES)}") from None
