"""What somebody with reference values concludes from a report, and what an update must preserve."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha384
from typing import Any

from seamref.arch.platform import Platform
from seamref.host import vmm
from seamref.layout import Record
from seamref.tdxmodule.build import BUILDS
from seamref.tdxmodule.look import td_facts


@lru_cache(maxsize=1)
def reference_values() -> dict[bytes, str]:
    """MRSEAM of every named build: what a verifier knows beforehand."""
    return {sha384(vmm.image_of(name)).digest(): name for name in BUILDS}


def svn(record: Record) -> str:
    """major.minor of a TEE_TCB_SVN."""
    return f"{record.seam_major_svn}.{record.seam_minor_svn}"


def verifier_says(report: Record) -> list[tuple[str, str]]:
    """What somebody with reference values concludes from a report, and what the report does not say."""
    info = report.tee_tcb_info
    created = reference_values().get(info.mrseam, "an unknown module")
    same = info.tee_tcb_svn == info.tee_tcb_svn2
    return [
        ("TD was created under", f"{created}, SVN {svn(info.tee_tcb_svn)} (MRSEAM, TEE_TCB_SVN)"),
        ("module that runs now", f"SVN {svn(info.tee_tcb_svn2)} (TEE_TCB_SVN2)"),
        ("replaced since", "by one of the same SVN, or not at all" if same else "yes"),
        ("identity of the module that runs now", "as created, or unknown" if same else "not in the report"),
        ("TD's own measurement", report.tdinfo.mrtd[:8].hex() + "..."),
    ]


def preserved(platform: Platform, td: vmm.Td) -> dict[str, Any]:
    """Facts of a TD that an update must preserve."""
    return td_facts(platform, td.tdr)
