"""Headers of the kit compile, assert every offset themselves, and stand side by side."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from seamref.arch.exhaustive import STATES, seamcall_table
from seamref.arch.revision import REVISIONS
from seamref.export import headers, kit

CC, RUSTC = shutil.which("gcc") or shutil.which("cc"), shutil.which("rustc")
needs_cc = pytest.mark.skipif(CC is None, reason="no C compiler here")
needs_rustc = pytest.mark.skipif(RUSTC is None, reason="no rustc here")
FLAGS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wno-unused-variable", "-Wno-unused-const-variable"]


def run(folder, *command, ok=True):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is ok, done.stderr[:2000]
    return done


def write(folder, **files):
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def c_source(*includes: str, body: str = "return 0;") -> str:
    return "\n".join([*(f'#include "{name}"' for name in includes), f"int main(void) {{ {body} }}", ""])


@needs_cc
def test_C__two_kits_and_two_revisions_in_one_file(tmp_path):
    write(tmp_path, one__h=headers.c_header("one"), two__h=headers.c_header("two"),
          a__h=headers.c_seamcall("silicon", "one"), b__h=headers.c_seamcall("343754-002", "one"),
          t__c=c_source("one.h", "two.h", "a.h", "b.h", body=(
              "return sizeof(struct one_seam_sigstruct) == sizeof(struct two_seam_sigstruct) && "
              "ONE_MSR_IA32_SEAMRR_PHYS_BASE == 0x1400 && ONE_VMCS_HOST_RIP == TWO_VMCS_HOST_RIP && "
              "one_seamcall_silicon_table[0][0] == one_seamcall_343754_002_table[0][0] ? 0 : 1;")))
    run(tmp_path, CC, *FLAGS, "t.c", "-o", "t")
    run(tmp_path, "./t")


@needs_cc
def test_C__an_offset_that_is_wrong_does_not_compile(tmp_path):
    text = headers.c_header("one")
    line = next(line for line in text.splitlines() if "offsetof(struct one_seam_sigstruct, signature)" in line)
    write(tmp_path, one__h=text.replace(line, line.replace("== 516", "== 520")), t__c=c_source("one.h"))
    assert "SEAM_SIGSTRUCT.signature" in run(tmp_path, CC, *FLAGS, "t.c", "-o", "t", ok=False).stderr


@needs_cc
def test_C__the_table_says_what_the_machine_does(tmp_path):
    name = "x_seamcall_343754_002"
    write(tmp_path, t__h=headers.c_seamcall("343754-002", "x"), t__c="#include <stdio.h>\n" + c_source("t.h", body=(
        f"for (int i = 0; i < {STATES}; i++) puts({name}_clauses[{name}_table[i][1]]); return 0;")))
    run(tmp_path, CC, *FLAGS, "t.c", "-o", "t")
    printed = run(tmp_path, "./t").stdout.split()
    assert printed == [answer.clause for answer in seamcall_table(REVISIONS["343754-002"])]


@needs_rustc
def test_Rust__compiles_with_its_own_assertions_and_has_the_tables(tmp_path):
    write(tmp_path, seamref__rs=headers.rust_header("test"), t__rs=(
        "mod seamref;\nfn main() {\n    use seamref::*;\n"
        "    assert_eq!(core::mem::size_of::<SEAM_SIGSTRUCT>(), 2048);\n"
        "    assert_eq!(msr::IA32_SEAMRR_PHYS_BASE, 0x1400);\n"
        "    assert_eq!(seamldr_status::EBADSIG, 0x8000000000020000);\n"
        "    let (a, b) = (seamcall_silicon::TABLE, seamcall_343754_002::TABLE);\n"
        "    let (x, y) = (seamcall_silicon::OUTCOMES, seamcall_343754_002::OUTCOMES);\n"
        "    let n = (0..seamcall_silicon::STATES).filter(|&i| x[a[i].0 as usize] != y[b[i].0 as usize]).count();\n"
        "    println!(\"{}\", n);\n}\n"))
    run(tmp_path, RUSTC, "--edition", "2021", "-D", "warnings", "t.rs", "-o", "t")
    silicon, printed = (seamcall_table(REVISIONS[name]) for name in ("silicon", "343754-002"))
    assert int(run(tmp_path, "./t").stdout) == sum(
        a.outcome != b.outcome for a, b in zip(silicon, printed, strict=True)) > 0


def test_headers__no_constant_is_defined_twice():
    defined = [line.split()[1] for line in headers.c_header().splitlines()
               if line.startswith("#define ") and "_ASSERT(" not in line]
    assert len(defined) == len(set(defined)) > 500


def test_headers__a_prefix_that_is_no_identifier_is_refused():
    for prefix in ("", "1x", "a-b", "a b", "x" * 41):
        with pytest.raises(ValueError, match="prefix"):
            kit.kit(["headers"], prefix=prefix)
