"""Choosing a module: every rule both ways, the published script's answers, and its flaws where they show."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamref.errors import SeamrefError
from seamref.host.releases import NOTED, RELEASES, get_release, platform_name
from seamref.host.select import (
    FLAWS,
    PLAN,
    Option,
    Situation,
    Version,
    best,
    flaws_that_show,
    make_situation,
    parse_mapping,
    parse_version,
    plan,
    script_installs,
    script_newest,
)
from seamref.spec import COVERAGE

SPR, EMR, SRF, GNR, GNR_D = 0x806F8, 0xC06F2, 0xA06F3, 0xA06D1, 0xA06E1


def against(situation: Situation, version: str) -> list[str]:
    return next([row.id for row in c.against] for c in plan(situation) if c.release.version == version)


def numbers(situation: Situation) -> list[int]:
    return [flaw.number for flaw in flaws_that_show(situation)]


# --- the eleven releases


def test_eleven_releases_in_two_lines() -> None:
    assert [v.rpartition(".")[0] for v in RELEASES] == ["1.5"] * 7 + ["2.0"] * 4
    assert len({r.seamhash for r in RELEASES.values()}) == 11
    assert all(len(bytes.fromhex(r.seamhash)) == 48 for r in RELEASES.values())


def test_figures_that_hold_for_all_releases() -> None:
    for release in RELEASES.values():
        assert release.fault_wrapper_offset == release.rip_offset + 0x160
        assert release.gdt_idt_offset % 4096 == 0
        assert release.blob_size == 8192 + release.pages * 4096
        assert (release.module_hv, release.min_update_hv, release.no_downgrade) == (0, 0, 0)
        assert bool(release.reserved3) == (release.version[0] == "2")
        assert release.features0 & 1 << 47 == 0


def test_svn_is_no_release_counter() -> None:
    assert RELEASES["2.0.04"].seamsvn == RELEASES["2.0.05"].seamsvn == 0x0304
    assert RELEASES["1.5.13"].seamsvn - RELEASES["1.5.09"].seamsvn == 2


def test_names_and_what_has_none() -> None:
    assert platform_name(0xC06F2) == "Emerald Rapids"
    assert platform_name(0x12345) == ""
    assert get_release("1.5.05").seamsvn == 0x0105
    with pytest.raises(SeamrefError, match=r"no measured release '1\.5\.07'"):
        get_release("1.5.07")
    assert {noted.version for noted in NOTED}.isdisjoint(RELEASES)


# --- the rules


CASES: dict[str, tuple[Situation, str]] = {
    "PLAN.seamldr": (make_situation("1.5.01", "2.0.00", [SPR]), "1.5.01"),
    "PLAN.reserved3": (make_situation(None, "1.5.00", [GNR], releases=[
        replace(RELEASES["2.0.08"], min_seamldr=("1.5.00",))]), "2.0.08"),
    "PLAN.cpu": (make_situation(None, "2.0.00", [SPR, GNR]), "1.5.16"),
    "PLAN.debug": (make_situation(None, "1.5.00", [SPR], releases=[
        replace(RELEASES["1.5.16"], debug_signed=True)]), "1.5.16"),
    "PLAN.remaining": (make_situation("1.5.05", "1.5.00", [SPR], remaining=0), "1.5.16"),
    "PLAN.major_svn": (make_situation("2.0.02", "2.0.00", [SRF]), "1.5.16"),
    "PLAN.minor_svn": (make_situation("1.5.16", "1.5.00", [SPR]), "1.5.13"),
    "PLAN.handoff": (make_situation("1.5.05", "1.5.00", [SPR], releases=[
        RELEASES["1.5.05"], replace(RELEASES["1.5.16"], min_update_hv=1, module_hv=1)]), "1.5.16"),
    "PLAN.line": (make_situation("1.5.16", "2.0.00", [GNR], releases=[
        RELEASES["1.5.16"], replace(RELEASES["2.0.05"], seamsvn=0x0110)]), "2.0.05"),
    "PLAN.min_preserving": (make_situation("2.0.02", "2.0.00", [GNR]), "2.0.08"),
    "PLAN.downgrade": (make_situation("2.0.05", "2.0.00", [GNR]), "2.0.04"),
    "PLAN.same": (make_situation("1.5.16", "1.5.00", [SPR]), "1.5.16"),
}


def test_there_is_a_case_for_every_rule() -> None:
    assert [row.id for row in PLAN] == list(CASES)


@pytest.mark.parametrize("id", CASES)
def test_each_rule_speaks_and_is_silent(id: str) -> None:
    situation, version = CASES[id]
    silent = COVERAGE[id][0]
    assert against(situation, version)[0] == id
    assert best(make_situation("1.5.05", "1.5.00", [SPR])) is RELEASES["1.5.16"]
    assert COVERAGE[id][0] > silent
    assert COVERAGE[id][1] > 0


def test_debug_signed_can_be_asked_for() -> None:
    situation, _ = CASES["PLAN.debug"]
    assert best(replace(situation, allow_debug=True)) is situation.releases[0]


def test_the_question_of_the_book() -> None:
    """Running 1.5.05 under P-SEAMLDR 1.5.00 on Sapphire Rapids."""
    situation = make_situation("1.5.05", "1.5.00", [SPR])
    good = [c.release.version for c in plan(situation) if c.good]
    assert good == ["1.5.16", "1.5.13", "1.5.09", "1.5.08", "1.5.06"]
    assert best(situation) is script_installs(situation) is RELEASES["1.5.16"]


def test_a_cold_load_is_bound_by_loader_and_cpu_only() -> None:
    assert best(make_situation(None, "2.0.00", [GNR])) is RELEASES["2.0.08"]
    assert best(make_situation(None, "1.5.00", [SPR])) is RELEASES["1.5.16"]
    assert best(make_situation(None, "1.5.00", [GNR])) is None
    assert best(make_situation(None, "1.0.00", [SPR])) is None


def test_2_0_02_can_be_updated_to_nothing() -> None:
    assert best(make_situation("2.0.02", "2.0.00", [GNR])) is None


def test_granite_rapids_d_needs_2_0_04() -> None:
    assert "PLAN.cpu" in against(make_situation(None, "2.0.00", [GNR_D]), "2.0.02")
    assert best(make_situation(None, "2.0.00", [GNR_D])) is RELEASES["2.0.08"]


def test_an_unknown_running_module_is_held_to_versions_only() -> None:
    situation = make_situation("1.5.07", "1.5.00", [SPR])
    assert best(situation) is RELEASES["1.5.16"]
    assert against(situation, "1.5.06") == ["PLAN.downgrade"]


# --- the published script


def test_18_flaws_in_order() -> None:
    assert [flaw.number for flaw in FLAWS] == list(range(1, 19))


def test_flaw_5__an_incompatible_newest_hides_an_older_one() -> None:
    newest = replace(RELEASES["1.5.16"], cpuids=(SRF,))
    situation = make_situation("1.5.05", "1.5.00", [SPR], releases=[*list(RELEASES.values())[:6], newest])
    assert (script_newest(situation), script_installs(situation)) == (newest, None)
    assert best(situation) is RELEASES["1.5.13"]
    assert 5 in numbers(situation)


def test_flaw_6__the_running_version_is_installed_again() -> None:
    situation = make_situation("1.5.16", "1.5.00", [SPR])
    assert script_installs(situation) is RELEASES["1.5.16"]
    assert best(situation) is None
    assert {6, 7} <= set(numbers(situation))


def test_flaw_4__no_update_remains() -> None:
    situation = make_situation("1.5.05", "1.5.00", [SPR], remaining=0)
    assert script_installs(situation) is RELEASES["1.5.16"]
    assert best(situation) is None
    assert 4 in numbers(situation)


def test_flaw_8__an_older_one_with_the_same_svn_is_not_offered() -> None:
    assert 8 in numbers(make_situation("2.0.05", "2.0.00", [GNR]))
    assert 8 not in numbers(make_situation("1.5.16", "1.5.00", [SPR]))


def test_flaw_9__handoff_versions_are_not_looked_at() -> None:
    situation, _ = CASES["PLAN.handoff"]
    assert script_installs(situation) is situation.releases[1]
    assert 9 in numbers(situation)


def test_flaw_10__another_package_is_not_looked_at() -> None:
    situation = make_situation("1.5.05", "1.5.00", [SPR, GNR])
    assert script_installs(situation) is RELEASES["1.5.16"]
    assert best(situation) is None
    assert 10 in numbers(situation)


def test_nothing_but_the_kernel_paths_shows_where_the_script_is_right() -> None:
    assert numbers(make_situation("1.5.05", "1.5.00", [SPR])) == [1, 2, 3]


def test_the_script_needs_a_running_module() -> None:
    assert script_newest(make_situation(None, "1.5.00", [SPR])) is None


def test_the_script_looks_at_update_numbers_only() -> None:
    """min_module_version_for_td_preserving 2.0.04 admits a running 1.5.05: 4 <= 5."""
    odd = replace(RELEASES["1.5.16"], min_preserving="2.0.04")
    situation = make_situation("1.5.05", "1.5.00", [SPR], releases=[RELEASES["1.5.05"], odd])
    assert script_newest(situation) is odd
    assert against(situation, "1.5.16") == ["PLAN.min_preserving"]


# --- versions and mapping files


def mapping(**entry: object) -> str:
    good = {"version": "1.5.05", "min_module_version_for_td_preserving": "1.5.01", "min_seamldr_versions": ["1.5.00"],
            "tdx_feature0": "0x61F0FBF"}
    return json.dumps({"Header": {}, "tdx_module_releases": [{**good, **entry}]})


def test_a_mapping_entry_keeps_what_was_measured() -> None:
    found = parse_mapping(mapping(min_seamldr_versions=["1.5.03"]))
    assert found == {"1.5.05": replace(RELEASES["1.5.05"], min_seamldr=("1.5.03",))}


def test_an_unknown_release_of_a_mapping_file_has_no_cpu_table() -> None:
    release = parse_mapping(mapping(version="1.5.24"))["1.5.24"]
    assert not release.measured
    situation = make_situation("1.5.16", "1.5.00", [SPR], releases=[release, RELEASES["1.5.16"]])
    assert best(situation) is release


@pytest.mark.parametrize(("text", "says"), [
    ("", "not JSON"),
    ("[" * 100_000, "not JSON"),
    ("[]", "no list tdx_module_releases"),
    ('{"tdx_module_releases": 5}', "no list tdx_module_releases"),
    ('{"tdx_module_releases": [5]}', r"tdx_module_releases\[0\]: not an object"),
    (mapping(version=5), r"\[0\].version: 5, must be a string"),
    (mapping(version="1.5"), r"\[0\].version: '1.5', must be MAJOR.MINOR.UPDATE"),
    (mapping(min_module_version_for_td_preserving=None), "min_module_version_for_td_preserving: None"),
    (mapping(min_seamldr_versions="1.5.00"), "min_seamldr_versions: '1.5.00', must be a list"),
    (mapping(min_seamldr_versions=["x"]), "min_seamldr_versions: 'x'"),
    (mapping(tdx_feature0="bits"), "tdx_feature0: 'bits', must be a hexadecimal"),
])
def test_what_is_wrong_with_a_mapping_file_is_said(text: str, says: str) -> None:
    with pytest.raises(SeamrefError, match=says):
        parse_mapping(text)


def test_a_version_listed_twice_is_said() -> None:
    twice = json.loads(mapping())
    twice["tdx_module_releases"] *= 2
    with pytest.raises(SeamrefError, match=r"\[1\].version: 1.5.05 is listed twice"):
        parse_mapping(json.dumps(twice))


def test_versions() -> None:
    assert parse_version("1.5.5") == Version(1, 5, 5)
    assert str(Version(1, 5, 5)) == "1.5.05"
    assert parse_version("1.5.05.0007") == Version(1, 5, 5), "the fourth part is a build"
    for text in ("", "1.5", "1.5.5.5.5", "1.5.x", "-1.5.5", "1.5.٣", "1.5." + "9" * 10):
        with pytest.raises(SeamrefError, match=r"MAJOR\.MINOR\.UPDATE"):
            parse_version(text)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([None, *RELEASES]), st.sampled_from(["1.0.00", "1.5.00", "1.5.01", "2.0.00"]),
       st.lists(st.sampled_from([SPR, EMR, SRF, GNR, GNR_D, 0]), min_size=1, max_size=3), st.sampled_from([None, 0, 5]))
def test_every_release_gets_a_verdict(running: str | None, seamldr: str, cpus: list[int], left: int | None) -> None:
    situation = make_situation(running, seamldr, cpus, remaining=left)
    candidates = plan(situation)
    assert {c.release.version for c in candidates} == set(RELEASES)
    choice = best(situation)
    if choice is not None:
        option = Option(choice, situation)
        assert option.has_loader()
        assert not option.missing_cpus()
    flaws_that_show(situation)


@given(st.text(max_size=60))
def test_any_text_is_a_mapping_or_an_error(text: str) -> None:
    try:
        parse_mapping(text)
    except SeamrefError as error:
        assert "mapping file" in str(error)
