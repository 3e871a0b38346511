"""From reset to a callable P-SEAMLDR, its reload, and what goes wrong on the way (:mod:`seamref.bootchain.attacks`)."""

from __future__ import annotations

from seamref.bootchain.chain import (
    BREAKS,
    INFO,
    INFO_BUFFER,
    INSTALL,
    MODULE_ADDRESS,
    SHUTDOWN,
    STEP_NAMES,
    STEPS,
    Boot,
    BootRecord,
    BootResult,
    BootStep,
    BootStopped,
    Break,
    Called,
    NotLaunched,
    Returned,
    StepAnswer,
    UpdateRecord,
    boot,
    default_acm,
    did_stop,
    failed,
    get_break,
    install,
    make_boot,
    read_info,
    relaunch,
    run_boot,
    seamldr_call,
    seamldr_info,
    shut_down_loader,
    update_loader,
)

__all__ = [
    "BREAKS", "Boot", "BootRecord", "BootResult", "BootStep", "BootStopped", "Break", "Called", "INFO",
    "INFO_BUFFER", "INSTALL", "MODULE_ADDRESS", "NotLaunched", "Returned", "SHUTDOWN", "STEPS", "STEP_NAMES",
    "StepAnswer", "UpdateRecord", "boot", "default_acm", "did_stop", "failed", "get_break", "install", "make_boot",
    "read_info", "relaunch", "run_boot", "seamldr_call", "seamldr_info", "shut_down_loader", "update_loader",
]
