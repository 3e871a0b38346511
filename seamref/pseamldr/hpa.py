"""The shared-HPA check: what P-SEAMLDR demands of every physical address that a caller names."""

from __future__ import annotations

from dataclasses import dataclass

from seamref.pseamldr.api import Status
from seamref.pseamldr.sysvalues import SystemValues
from seamref.spec import MEASURED, Check, CheckTable


@dataclass(frozen=True, slots=True)
class SharedHpa:
    """``hpa`` as the caller gave it, the power-of-two ``alignment`` demanded, the platform's values."""

    hpa: int
    alignment: int
    values: SystemValues

    @property
    def plain(self) -> int:
        """The address without KeyID bits."""
        return self.hpa & ~self.values.hkid_mask

    @property
    def hkid(self) -> int:
        """The KeyID."""
        return (self.hpa & self.values.hkid_mask) >> self.values.hkid_shift


_SRC = "PSL src/common/helpers/helpers.c"

SHARED_HPA: CheckTable[SharedHpa, Status] = CheckTable("SHARED_HPA", (
    Check("HPA.alignment", "not aligned", lambda c: bool(c.hpa & (c.alignment - 1)), Status.EBADPARAM, _SRC, MEASURED),
    Check("HPA.width", "at or above 2^MAXPA", lambda c: c.hpa >> c.values.max_pa != 0, Status.EBADPARAM, _SRC,
          MEASURED),
    Check("HPA.seamrr", "without KeyID bits, the start lies in SEAMRR",
          lambda c: 0 <= c.plain - c.values.seamrr_base < c.values.seamrr_size, Status.EBADPARAM, _SRC, MEASURED),
    Check("HPA.hkid", "KeyID is not below the first private one",
          lambda c: c.hkid >= c.values.private_hkid_min, Status.EBADPARAM, _SRC, MEASURED),
), "Shared physical address: conditions in order.  Only the start is looked at; nothing asks whether memory is there.")


def is_shared_hpa(hpa: int, alignment: int, values: SystemValues) -> bool:
    """Whether every row of SHARED_HPA is silent."""
    return SHARED_HPA.decide(SharedHpa(hpa, alignment, values)) is None
