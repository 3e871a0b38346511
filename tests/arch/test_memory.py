"""Sparse memory, forks, and who may touch which address (MEMORY)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamref.arch import lab
from seamref.arch.memory import MEMORY, Agent, Verdict, get_agent, judge_read
from seamref.arch.msr import SEAMRR_BASE, SEAMRR_MASK
from seamref.arch.outcome import Fault, Vector
from seamref.arch.platform import Platform, PlatformConfig, Topology
from seamref.arch.revision import SILICON, Denied, Integrity
from seamref.arch.store import Store
from seamref.errors import SeamrefError, TopologyError

SPAN = 3 << 21
WRITES = st.lists(
    st.tuples(
        st.sampled_from(["write", "zero", "fork"]),
        st.integers(0, SPAN - 1),
        st.integers(1, 9000),
        st.integers(0, 255),
    ),
    max_size=30,
)


@settings(max_examples=60)
@given(WRITES)
def test_store__reads_what_was_written_and_forks_stay_apart(steps: list[tuple[str, int, int, int]]) -> None:
    store, model = Store(), bytearray(SPAN + 16384)
    forks: list[tuple[Store, bytes]] = []
    for kind, at, size, value in steps:
        if kind == "fork":
            forks.append((store.fork(), bytes(model)))
        elif kind == "zero":
            store.zero(at, size)
            model[at : at + size] = bytes(size)
        else:
            data = bytes([value]) * size
            store.write(at, data)
            model[at : at + size] = data
    for one, expected in [*forks, (store, bytes(model))]:
        assert one.read(0, len(expected)) == expected
        fresh = Store()
        fresh.write(0, expected)
        assert fresh.fingerprint() == one.fingerprint()  # however the bytes came about
        assert b"".join(page for _, page in one.pages()) == b"".join(page for _, page in fresh.pages())


def test_store__fingerprint_sees_contents_and_line_keys() -> None:
    store = Store()
    empty = store.fingerprint()
    store.write(0x1000, bytes(64))
    assert store.fingerprint() == empty
    store.write(0x1000, b"\1")
    changed = store.fingerprint()
    assert changed != empty
    store.write(0x1000, b"\1", key=5)
    assert store.fingerprint() != changed
    assert store.keys(0x1000, 128) == {0, 5}
    store.zero(0x1000, 4096)
    assert store.fingerprint() == empty


@pytest.fixture
def platform() -> Platform:
    return lab.platform()


INSIDE = lab.P_SEAMLDR_RANGE.base + 0x100000
MODULE = lab.SEAMRR.base + 0x100000

ACCESS = [
    # agent, address, verdict, clause
    (Agent.HOST, 0x200000, Verdict.ALLOWED, "MEMORY"),
    (Agent.HOST, 1 << 52, Verdict.RESERVED_BIT, "MEMORY.width"),
    (Agent.HOST, 1 << 51 | 0x200000, Verdict.RESERVED_BIT, "MEMORY.private_keyid"),
    (Agent.HOST, 1 << 50 | 0x200000, Verdict.ALLOWED, "MEMORY"),
    (Agent.GUEST, 1 << 51 | 0x200000, Verdict.RESERVED_BIT, "MEMORY.private_keyid"),
    (Agent.DMA, 1 << 51 | 0x200000, Verdict.ABORTED, "MEMORY.private_keyid_dma"),
    (Agent.MODULE, 1 << 51 | 0x200000, Verdict.ALLOWED, "MEMORY"),
    *((agent, INSIDE, Verdict.DENIED, "MEMORY.p_seamldr_range")
      for agent in (Agent.HOST, Agent.GUEST, Agent.SMM, Agent.DMA, Agent.MODULE, Agent.TD, Agent.ACM)),
    *((agent, INSIDE, Verdict.ALLOWED, "MEMORY") for agent in (Agent.P_SEAMLDR, Agent.CPU)),
    *((agent, MODULE, Verdict.DENIED, "MEMORY.module_range")
      for agent in (Agent.HOST, Agent.GUEST, Agent.SMM, Agent.DMA, Agent.TD, Agent.ACM)),
    *((agent, MODULE, Verdict.ALLOWED, "MEMORY") for agent in (Agent.MODULE, Agent.P_SEAMLDR, Agent.CPU)),
    (Agent.HOST, lab.SEAMRR.base - 8, Verdict.ALLOWED, "MEMORY"),  # ends where SEAMRR begins
    (Agent.HOST, lab.SEAMRR.base - 7, Verdict.DENIED, "MEMORY.module_range"),
    (Agent.HOST, lab.SEAMRR.end - 1, Verdict.DENIED, "MEMORY.p_seamldr_range"),
    (Agent.HOST, lab.SEAMRR.end, Verdict.ALLOWED, "MEMORY"),
    (Agent.HOST, lab.SEAMRR.end + 8, Verdict.ALLOWED, "MEMORY"),
    (Agent.MODULE, lab.P_SEAMLDR_RANGE.base - 8, Verdict.ALLOWED, "MEMORY"),
    (Agent.MODULE, lab.P_SEAMLDR_RANGE.base - 7, Verdict.DENIED, "MEMORY.p_seamldr_range"),
    (Agent.MODULE, (1 << 52) - 8, Verdict.ALLOWED, "MEMORY"),  # the last bytes that have an address
    (Agent.MODULE, (1 << 52) - 7, Verdict.RESERVED_BIT, "MEMORY.width"),
    (Agent.HOST, lab.SEAMRR.base - 4, Verdict.DENIED, "MEMORY.module_range"),  # 8 bytes across the edge
    (Agent.HOST, 1 << 50 | MODULE, Verdict.DENIED, "MEMORY.module_range"),  # the range match ignores KeyID bits
]


@pytest.mark.parametrize(("agent", "address", "verdict", "clause"), ACCESS)
def test_MEMORY__who_may_touch_what(
    platform: Platform, agent: Agent, address: int, verdict: Verdict, clause: str
) -> None:
    assert platform.judge(agent, address, 8, False) == (verdict, clause)


def test_MEMORY__every_row_is_exercised() -> None:
    assert {clause for *_, clause in ACCESS} == {"MEMORY", *(row.id for row in MEMORY)}


def test_MEMORY_dma_range__a_device_meets_the_range_also_while_VALID_is_0() -> None:
    platform = lab.platform()
    lp = platform.lp(0)
    lp.msrs[SEAMRR_BASE], lp.msrs[SEAMRR_MASK] = 0x80000008, 0xFFFFFC000400  # 64 MiB, LOCK, not VALID
    for agent, at, verdict in (
        (Agent.DMA, 0x70000000, Verdict.ALLOWED), (Agent.DMA, 0x80000000, Verdict.DENIED),
        (Agent.DMA, 0x83FFFFF8, Verdict.DENIED), (Agent.DMA, 0x84000000, Verdict.ALLOWED),
        (Agent.HOST, 0x80000000, Verdict.ALLOWED),
    ):
        assert platform.judge(agent, at, 8, False)[0] is verdict, hex(at)
    platform.p_seamldr_range = None  # before MCHECK told it
    assert platform.judge(Agent.DMA, 0x80000000, 8, False)[0] is Verdict.ALLOWED
    platform = lab.platform()
    for address in (SEAMRR_BASE, SEAMRR_MASK):
        del platform.lp(0).msrs[address]
    assert platform.judge(Agent.DMA, 0x200000, 8, False)[0] is Verdict.ALLOWED


def test_MEMORY_denied__abort_page_reads_ones_and_drops_writes(platform: Platform) -> None:
    before = platform.fingerprint()
    assert platform.load(Agent.HOST, MODULE, 16) == b"\xff" * 16
    assert platform.store(Agent.HOST, MODULE, b"x" * 16) is None
    assert platform.zero(Agent.HOST, MODULE, 4096) is None
    assert platform.fingerprint() == before


def test_MEMORY_denied__a_revision_faults_instead() -> None:
    platform = lab.platform(revision=replace(SILICON, denied=Denied.FAULT))
    expected = Fault(Vector.GP, 0, "MEMORY.module_range")
    assert platform.load(Agent.HOST, MODULE, 16) == expected
    assert platform.store(Agent.HOST, MODULE, b"x") == expected
    assert platform.zero(Agent.HOST, MODULE, 4096) == expected


def test_MEMORY_private_keyid__software_outside_SEAM_gets_a_reserved_bit_page_fault(platform: Platform) -> None:
    address = platform.with_keyid(0x200000, 32)
    assert platform.load(Agent.HOST, address, 8) == Fault(Vector.PF, 0b1001, "MEMORY.private_keyid")
    assert platform.store(Agent.HOST, address, b"x") == Fault(Vector.PF, 0b1011, "MEMORY.private_keyid")
    assert platform.load(Agent.DMA, address, 8) == b"\xff" * 8


@pytest.mark.parametrize(
    ("integrity", "private", "owned", "result"),
    [
        (Integrity.LI, True, True, (True, False)),
        (Integrity.LI, True, False, (False, True)),
        (Integrity.LI, False, True, (False, False)),
        (Integrity.CI, False, True, (False, True)),
        (Integrity.CI, True, False, (False, True)),
        (Integrity.LI, False, False, (True, False)),
        (Integrity.CI, False, False, (True, False)),
    ],
)
def test_MEMORY_integrity__td_owner_table(
    integrity: Integrity, private: bool, owned: bool, result: tuple[bool, bool]
) -> None:
    assert judge_read(integrity, private, owned) == result


def test_MEMORY_integrity__a_private_page_is_not_readable_with_a_shared_keyid(platform: Platform) -> None:
    secret = b"secret".ljust(64, b"!")
    private, other = platform.with_keyid(0x300000, 40), platform.with_keyid(0x300000, 3)
    assert platform.store(Agent.MODULE, private, secret) is None
    assert platform.load(Agent.MODULE, private, 64) == secret
    assert platform.load(Agent.HOST, 0x300000, 64) == bytes(64)
    assert platform.load(Agent.HOST, other, 64) == bytes(64)
    platform.revision = replace(SILICON, integrity=Integrity.CI)
    assert platform.load(Agent.HOST, 0x300000, 64) == Fault(Vector.MC, None, "MEMORY.integrity")
    platform.store(Agent.HOST, 0x300000, b"x")  # writes never check, but the owner bit is gone
    assert platform.load(Agent.MODULE, private, 64) == Fault(Vector.MC, None, "MEMORY.integrity")


def test_MEMORY_integrity__two_shared_keyids_scramble(platform: Platform) -> None:
    one, other = platform.with_keyid(0x300000, 1), platform.with_keyid(0x300000, 2)
    platform.store(Agent.HOST, one, b"plain text")
    garbage = platform.load(Agent.HOST, other, 10)
    assert garbage != b"plain text" and garbage == platform.load(Agent.HOST, other, 10)
    assert platform.load(Agent.HOST, one, 10) == b"plain text"


def test_MEMORY__separate_keyids_are_separate_memory() -> None:
    platform = Platform(PlatformConfig(keyid_separate=True))
    platform.store(Agent.HOST, 0x1000, b"a")
    platform.store(Agent.HOST, 1 << 51 | 0x1000, b"b")
    assert platform.load(Agent.HOST, 0x1000, 1) == b"a"


def test_get_agent__follows_the_mode(platform: Platform) -> None:
    lp = platform.lp(0)
    seen = [get_agent(lp)]
    for changes in ({"non_root": True}, {"inSEAM": True}, {"non_root": False}, {"inP_SEAMLDR": True},
                    {"ACMODEFLAG": True}, {"in_smm": True}):
        for name, value in changes.items():
            setattr(lp, name, value)
        seen.append(get_agent(lp))
    assert seen == [Agent.HOST, Agent.GUEST, Agent.TD, Agent.MODULE, Agent.P_SEAMLDR, Agent.ACM, Agent.SMM]


def test_platform__a_fork_changes_alone_and_compares_equal_when_equal() -> None:
    base = lab.platform(topology=Topology(8, 56))
    print_before = base.fingerprint()
    fork = base.fork()
    assert fork.fingerprint() == print_before
    fork.lp(3).rax = 7
    fork.store(Agent.HOST, 0x5000, b"x")
    assert base.lp(3).rax == 0 and base.load(Agent.HOST, 0x5000, 1) == b"\0"
    assert fork.fingerprint() != print_before == base.fingerprint()
    fork.lp(3).rax = 0
    fork.store(Agent.HOST, 0x5000, b"\0")
    assert fork.fingerprint() == print_before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Topology(0, 1), "Topology.sockets: 0"),
        (lambda: Topology(9, 1), "Topology.sockets: 9"),
        (lambda: Topology(1, 0), "Topology.lps_per_socket: 0"),
        (lambda: Topology(1, 8, addressable=4), "4 ids cannot name 8"),
        (lambda: Topology(1, ids=(1, 1)), "listed twice"),
        (lambda: Topology(1, ids=(1 << 32,)), "32 bits"),
        (lambda: PlatformConfig(maxpa=60), "maxpa: 60"),
        (lambda: PlatformConfig(max_keyid_bits=16), "max_keyid_bits: 16"),
        (lambda: PlatformConfig(cpusvn=b"1"), "cpusvn: 1 bytes"),
        (lambda: Platform().lp(99), "x2APIC id 99"),
        (lambda: lab.platform().with_keyid(0, 64), "KeyID 64"),
        (lambda: lab.platform().bytes_at(Agent.HOST, 1 << 52, 4), "HOST reading 4 bytes at 0x10000000000000"),
    ],
)
def test_platform__nonsense_is_named(make: object, message: str) -> None:
    with pytest.raises((SeamrefError, TopologyError), match=message):
        make()  # type: ignore[operator]


def test_platform__topology_of_eight_sockets() -> None:
    topology = Topology(8, 56)
    ids = topology.x2apic_ids()
    assert len(ids) == 448 and topology.stride == 64 and ids[56] == 64
    assert [topology.package_of(id) for id in (0, 55, 64, 511)] == [0, 0, 1, 7]
