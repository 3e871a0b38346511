"""Pictures of an update: what they say to a reader without eyes."""

from __future__ import annotations

from seamref.experiments.host.recording import record
from seamref.host.fw_upload import Terminal
from seamref.host.image import V1
from seamref.host.machine import blob, machine
from seamref.host.update import round_robin
from seamref.show.host import terminal, update_explorer, update_picture


def test_spacetime__names_states_and_calls_and_marks_failures() -> None:
    good = update_picture(machine(2), blob("1.5.16"), "good", round_robin())
    assert "CPU_INSTALL:\n  CPU 1: SEAMLDR.INSTALL: entered P-SEAMLDR" in good.text and good.text.endswith("returns 0")
    bad = update_picture(machine(2), blob("2.0.05"), "bad")
    assert "acknowledges CPU_INSTALL with -EIO" in bad.text and "seam-red" in bad.html and "seam-red" not in good.html


def test_record__a_file_that_the_kernel_refuses_has_no_steps() -> None:
    assert record(machine(2), blob("1.5.16", version=V1)) == ([], "-EINVAL")


def test_spacetime__a_processor_that_dies_is_red_and_the_rest_hang() -> None:
    from seamref.arch.memory import Agent

    host = machine(2)
    assert host.platform.p_seamldr_range is not None
    at = host.platform.p_seamldr_range.base + 0x1000 + 0x308
    host.platform.store(Agent.CPU, at, (0xDEAD000).to_bytes(8, "little"))
    shown = update_picture(host, blob("1.5.16"), "dies")
    assert "never returns" in shown.text and "seam-red" in shown.html


def test_terminal__escapes_and_prompts() -> None:
    shown = terminal(Terminal(machine(2)), "echo 1 > /nowhere")
    assert "# echo 1 &gt; /nowhere" in shown.html and "No such file" in shown.text


def test_update_explorer__each_trouble_is_a_choice() -> None:
    made = update_explorer()
    assert len(made.options["trouble"]) == 13 and len(made.options["series"]) == 11
    assert "fails too: reboot" in repr(made.at(cpus=2))
    assert "counts on, to 2" in repr(made.at(trouble=made.options["trouble"]["the file is cut short"], cpus=2))
