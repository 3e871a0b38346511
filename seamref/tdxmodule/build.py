"""What distinguishes one build of the TDX module from another: constants that are bytes of its image.

:data:`TDX_MODULE_BUILD` lies directly behind the 64-byte stub at the entry point of a minted image, so two builds
differ in their hash, and a loader that loaded the wrong image is found out.  Named builds cover every outcome that
the documents know for an update.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from seamref.arch.software import STUB, stand_in
from seamref.errors import SeamrefError
from seamref.layout import Bit, Bits, Field, Layout, Record, reserved, u8, u16, u32

if TYPE_CHECKING:
    from seamref.arch.platform import Platform

FEATURES0 = (
    Bit("TD_MIGRATION", 0, 0), Bit("TD_PRESERVING", 1, 1, "run-time update"), Bit("SERVICE_TD", 2, 2),
    Bit("TDG_VP_RDWR", 3, 3), Bit("RELAXED_MEM_MNG_CONCURRENCY", 4, 4), Bit("CPUID_VIRT_GUEST_CTRL", 5, 5),
    Bit("TD_PARTITIONING", 7, 7), Bit("LOCAL_ATTESTATION", 8, 8, "SEAMOPS[SEAMVERIFYREPORT] is there"),
    Bit("TD_ENTRY_ENHANCEMENTS", 9, 9), Bit("HOST_PRIORITY_LOCKS", 10, 10),
    Bit("CONFIG_IA32_ARCH_CAPABILITIES", 11, 11), Bit("PENDING_EPT_VIOLATION_V2", 16, 16), Bit("FMS_CONFIG", 17, 17),
    Bit("NO_RBP_MOD", 18, 18), Bit("L2_TLB_INVD_OPT", 19, 19), Bit("TOPOLOGY_ENUM", 20, 20),
    Bit("CLFLUSH_BEFORE_ALLOC", 23, 23), Bit("DYNAMIC_PAMT", 36, 36),
    Bit("UPDATE_COMPATIBILITY", 47, 47, "TDH.SYS.SHUTDOWN can refuse while a TD is being built"),
)
"""TDX_FEATURES0 bits that this book names."""
TD_PRESERVING, UPDATE_COMPATIBILITY = 1 << 1, 1 << 47
FEATURES0_1_5_01 = 0x000F_0FBF
"""What 1.5.01 enumerates."""

TDX_MODULE_BUILD = Layout(
    "TDX_MODULE_BUILD",
    (
        Field("major", u16, "MAJOR_VERSION", 0),
        Field("minor", u16, "MINOR_VERSION", 2),
        Field("update", u16, "UPDATE_VERSION", 4),
        Field("internal", u16, "INTERNAL_VERSION", 6),
        Field("build_num", u16, "BUILD_NUM", 8),
        Field("module_hv", u16, "newest handoff version it writes and reads", 10),
        Field("build_date", u32, "BUILD_DATE: decimal yyyymmdd as a number", 12),
        Field("min_update_hv", u16, "oldest handoff version it reads", 16),
        Field("no_downgrade", u8, "1: hands off in MODULE_HV only", 18),
        Field("hash_format", u8, "packed format of an unfinished SHA-384 (the cryptographic library's own)", 19),
        Field("num_handoff_pages", u16, "handoff pages minus 1 that its sigstruct asks for", 20),
        reserved("reserved_0", 2, 22),
        Field("tdx_features0", Bits(8, FEATURES0), "TDX_FEATURES0", 24),
        Field("knobs", Bits(8, (
            Bit("detect_after_update", 0, 0, "fails a TD build that an update interrupted, instead of spoiling it"),
            Bit("checks_misc_enable", 1, 1, "TDH.SYS.INIT looks at IA32_MISC_ENABLE (1.5.05 and later)"),
            Bit("version_1_init", 2, 2, "takes version 1 of TDH.SYS.INIT (1.5.16)"),
            Bit("version_1_vp_init", 3, 3, "takes version 1 of TDH.VP.INIT (1.5.05)"),
            Bit("disable", 4, 4, "has TDH.SYS.DISABLE"),
        )), "differences of behaviour between releases", 32),
        reserved("reserved_1", 24, 40),
    ),
    size=64,
    source="SEAMREF",
    doc="Build constants of a minted TDX module, 64 bytes behind the stub at its entry point.",
)

DETECT_AFTER_UPDATE, CHECKS_MISC_ENABLE, VERSION_1_INIT, VERSION_1_VP_INIT, DISABLE = 1, 2, 4, 8, 16


@dataclass(frozen=True, slots=True)
class Build:
    """A named module build, and the sigstruct fields that a release would carry with it.

    ``major_svn``/``minor_svn`` and the sizes go to the sigstruct; everything else is :data:`TDX_MODULE_BUILD`.
    Sizes are pages minus 1, as the sigstruct has them.
    """

    name: str
    says: str
    major: int = 1
    minor: int = 5
    update: int = 5
    internal: int = 0
    build_num: int = 744
    build_date: int = 20240129
    module_hv: int = 0
    min_update_hv: int = 0
    no_downgrade: int = 0
    hash_format: int = 1
    num_handoff_pages: int = 13
    tdx_features0: int = 0x61F_0FBF
    knobs: int = CHECKS_MISC_ENABLE | VERSION_1_VP_INIT
    minor_svn: int = 5
    major_svn: int = 1
    num_stack_pages: int = 1
    num_tls_pages: int = 1
    num_keyhole_pages: int = 127
    num_global_data_pages: int = 21

    @property
    def constants(self) -> bytes:
        """The 64 bytes for the image."""
        names = {field.name for field in TDX_MODULE_BUILD.fields}
        return TDX_MODULE_BUILD.encode({f.name: getattr(self, f.name) for f in fields(self) if f.name in names})

    @property
    def sigstruct_fields(self) -> dict[str, int]:
        """What a matching SEAM_SIGSTRUCT says about this build, by the sigstruct's field names."""
        return {
            "seamsvn": self.minor_svn | self.major_svn << 8,
            "num_stack_pages": self.num_stack_pages,
            "num_tls_pages": self.num_tls_pages,
            "num_keyhole_pages": self.num_keyhole_pages,
            "num_global_data_pages": self.num_global_data_pages,
            "module_hv": self.module_hv,
            "min_update_hv": self.min_update_hv,
            "no_downgrade": self.no_downgrade,
            "num_handoff_pages": self.num_handoff_pages,
        }

    @property
    def version(self) -> str:
        """major.minor.update as releases print it."""
        return f"{self.major}.{self.minor}.{self.update:02}"


BUILDS: dict[str, Build] = {build.name: build for build in (
    Build("1.5.01", "the first release with TD-preserving update", update=1, build_num=481, build_date=20231008,
          tdx_features0=FEATURES0_1_5_01, knobs=0, minor_svn=4),
    Build("1.5.05", "the baseline of this book; SVN 1.5"),
    Build("1.5.06", "the next release: same handoff version, higher SVN", update=6, build_num=784, build_date=20240407,
          tdx_features0=0x2E1F_0FBF, minor_svn=6),
    Build("1.5.16", "a later release, same handoff version", update=16, build_num=890, build_date=20250219,
          tdx_features0=0x22_6F3F_0FBF, knobs=CHECKS_MISC_ENABLE | VERSION_1_INIT | VERSION_1_VP_INIT, minor_svn=11),
    Build("1.5.06-crypto", "1.5.06 linked with a library that packs its hash state differently", update=6,
          build_num=785, build_date=20240407, tdx_features0=0x2E1F_0FBF, minor_svn=6, hash_format=2),
    Build("1.5.06-detect", "as 1.5.06-crypto, but fails a build that the update interrupted", update=6, build_num=786,
          build_date=20240407, tdx_features0=0x2E1F_0FBF, minor_svn=6, hash_format=2,
          knobs=CHECKS_MISC_ENABLE | VERSION_1_VP_INIT | DETECT_AFTER_UPDATE),
    Build("1.5.920", "can refuse SHUTDOWN while a TD is being built (TDX_FEATURES0 bit 47)", update=920, build_num=900,
          build_date=20250901, tdx_features0=0x22_6F3F_0FBF | UPDATE_COMPATIBILITY,
          knobs=CHECKS_MISC_ENABLE | VERSION_1_INIT | VERSION_1_VP_INIT, minor_svn=12),
    Build("1.5.930", "writes handoff version 1, still reads 0", update=930, build_num=950, build_date=20260115,
          tdx_features0=0x22_6F3F_0FBF | UPDATE_COMPATIBILITY, module_hv=1, min_update_hv=0,
          knobs=CHECKS_MISC_ENABLE | VERSION_1_INIT | VERSION_1_VP_INIT, minor_svn=13),
    Build("1.5.931", "writes and reads handoff version 1 only", update=931, build_num=951, build_date=20260215,
          tdx_features0=0x22_6F3F_0FBF | UPDATE_COMPATIBILITY, module_hv=1, min_update_hv=1,
          knobs=CHECKS_MISC_ENABLE | VERSION_1_INIT | VERSION_1_VP_INIT, minor_svn=14),
    Build("1.5.932", "handoff versions 0 to 1, hands off in version 1 only (NO_DOWNGRADE)", update=932, build_num=952,
          build_date=20260315, tdx_features0=0x22_6F3F_0FBF | UPDATE_COMPATIBILITY, module_hv=1, min_update_hv=0,
          no_downgrade=1, knobs=CHECKS_MISC_ENABLE | VERSION_1_INIT | VERSION_1_VP_INIT, minor_svn=14),
    Build("1.5.933", "a later release that knows handoff version 0 only", update=933, build_num=953,
          build_date=20260415,
          tdx_features0=0x22_6F3F_0FBF | UPDATE_COMPATIBILITY,
          knobs=CHECKS_MISC_ENABLE | VERSION_1_INIT | VERSION_1_VP_INIT, minor_svn=15),
    Build("1.5.940", "as 1.5.930, and can be disabled (TDH.SYS.DISABLE)", update=940, build_num=960,
          build_date=20260601,
          tdx_features0=0x22_6F3F_0FBF | UPDATE_COMPATIBILITY, module_hv=1,
          knobs=CHECKS_MISC_ENABLE | VERSION_1_INIT | VERSION_1_VP_INIT | DISABLE, minor_svn=16),
    Build("2.0.05", "the next major SVN", major=2, minor=0, update=5, build_num=1010, build_date=20250123,
          tdx_features0=0x22_6F3F_0FBF, knobs=CHECKS_MISC_ENABLE | VERSION_1_INIT | VERSION_1_VP_INIT, minor_svn=4,
          major_svn=3),
    Build("1.0-like", "major SVN 0: hands nothing off, every load is a cold one", major=1, minor=0, update=3,
          build_num=300, build_date=20220601, tdx_features0=0, knobs=0, minor_svn=3, major_svn=0),
)}
"""Builds by name.  1.5.01 to 1.5.16 follow the published releases' versions, dates, SVNs and TDX_FEATURES0 (1.5.05: the
published source enumerates 1F0FBFH; whether the released binary has bits 25 and 26 too is not known); the others
are *chosen* so that every outcome of an update occurs.  Invented ones of line 1.5 have an update number above 900,
which no release has."""

FORMER_NAMES = {f"1.5.{update}": f"1.5.9{update}" for update in (20, 30, 31, 32, 33, 40)}
"""Names that invented builds had before releases of these numbers came out; only :func:`get_build` still knows them."""


def get_build(name: str) -> Build:
    """A named build; an unknown name is an error that lists the known ones."""
    try:
        return BUILDS[FORMER_NAMES.get(name, name)]
    except KeyError:
        raise SeamrefError(f"no TDX module build {name!r}; there are {', '.join(BUILDS)}") from None


def decode_build(data: bytes) -> Record:
    """The build constants of an image, from the bytes behind its stub."""
    return TDX_MODULE_BUILD.decode(data)


def read_build(platform: Platform, read: Callable[[int, int], bytes], at: int) -> Record:
    """The build constants of the module whose entry point is ``at``; a stand-in brings its own."""
    if platform.config.stand_ins and (instead := stand_in(platform, read(at, STUB.size))) is not None:
        return TDX_MODULE_BUILD.decode(instead.constants)
    return TDX_MODULE_BUILD.decode(read(at + STUB.size, TDX_MODULE_BUILD.size))
