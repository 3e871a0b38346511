"""A genuine image on this machine: P-SEAMLDR works on its bytes; where its code would run, a model of the module runs.

Intel's code cannot be executed here.  Everything that P-SEAMLDR does with an image (signature, hash, memory plan,
relocation, handoff versions) needs no code of it, and what the kernel then asks the module is answered by the model of
a named build, with the handoff fields of the file's own sigstruct.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from seamref.arch.platform import Platform
from seamref.arch.software import ENDBR64_JMP, STUB, TDX_MODULE_PROGRAM, StandIn
from seamref.errors import SeamrefError
from seamref.host import image as images
from seamref.host.releases import RELEASES
from seamref.layout import Buffer
from seamref.pseamldr.sigstruct import SEAM_SIGSTRUCT, image_hash
from seamref.spec import CHOSEN, implements
from seamref.tdxmodule.build import BUILDS, TDX_MODULE_BUILD, Build, get_build

OWN_FIELDS = ("num_handoff_pages", "module_hv", "min_update_hv", "no_downgrade")
"""Build constants that the file's sigstruct states."""


@dataclass(frozen=True, slots=True)
class Appointed:
    """What runs in place of a file's code: ``build`` the model, ``release`` what the file is, "" when not known."""

    stand_in: StandIn
    build: Build
    release: str

    @property
    def says(self) -> str:
        """One sentence for a terminal."""
        what = f"release {self.release}" if self.release else "an image of no known release"
        return (f"{what}: its own code cannot run on this machine; from its entry point on, this book's model of build "
                f"{self.build.name} runs in its place")


def stand_in_for(data: Buffer, build: str | None = None) -> Appointed | None:
    """Which model stands for the code of a TDX-BLOB; ``None`` when this machine can run the code itself.

    ``build`` names the model; without it the release table must know the image, and a build of that version exist.
    Errors: a file that is no TDX-BLOB, an entry point outside the image, an image that nothing is known to stand for.
    """
    blob = images.parse(bytes(data), ignore_checksum=True)
    image, sigstruct = bytes(blob.module), SEAM_SIGSTRUCT.decode(blob.sigstruct)
    entry: int = sigstruct.rip_offset
    code = image[entry : entry + STUB.size]
    if len(code) != STUB.size:
        raise SeamrefError(f"SEAM_SIGSTRUCT.rip_offset: 0x{entry:X}, must leave {STUB.size} bytes of the image's "
                           f"{len(image)}")
    if bytes(STUB.peek(code, "code")) == ENDBR64_JMP and bytes(STUB.peek(code, "program")) == TDX_MODULE_PROGRAM:
        return None
    measured = image_hash(image).hex()
    release = next((r.version for r in RELEASES.values() if r.seamhash == measured), "")
    if build is None and release not in BUILDS:
        what = f"is release {release}, of which there is no model" if release else "is no release that is known"
        raise SeamrefError(f"the image {what}: say which build stands for it: {', '.join(BUILDS)}")
    model = get_build(build or release)
    own = {field: sigstruct[field] for field in OWN_FIELDS}
    constants = TDX_MODULE_BUILD.encode({**TDX_MODULE_BUILD.decode(model.constants), **own})
    return Appointed(StandIn(code, TDX_MODULE_PROGRAM, constants), model, release)


@implements("UPLOAD.stand_in", "code that cannot be executed here is stood for by the model of a named build, and the "
            "answer says so", "SEAMREF errata", CHOSEN)
def appoint(platform: Platform, appointed: Appointed) -> None:
    """UPLOAD.stand_in: from now on the model runs where the file's code would."""
    platform.config = replace(platform.config, stand_ins=(*platform.config.stand_ins, appointed.stand_in))
