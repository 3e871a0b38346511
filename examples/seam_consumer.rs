//! SEAMCALL's and TDCALL's checks in Rust, as a program under test.  Only the standard library:
//!
//!     rustc -O -o seam_consumer seam_consumer.rs
//!     python -m seamref consume --set seamcall -- ./seam_consumer
//!     python -m seamref consume --set tdcall -- ./seam_consumer
//!     python -m seamref consume --set seamcall -- ./seam_consumer 343754-002
//!
//! `seamcall` stands for your own code.  Its checks are rows in an order, so that the two orders are two lists: the one
//! that was measured on silicon agrees everywhere, the printed one of 343754-002 is told where it differs.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;

// ---------------------------------------------------------------- what requests are made of

enum Json {
    Object(BTreeMap<String, Json>),
    Text(String),
    Flag(bool),
    Other,
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

type Read<T> = Result<T, String>;

impl<'a> Reader<'a> {
    fn space(&mut self) {
        while self.at < self.text.len() && self.text[self.at].is_ascii_whitespace() {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Read<u8> {
        self.space();
        self.text.get(self.at).copied().ok_or_else(|| "the line ends early".into())
    }

    fn take(&mut self, wanted: u8) -> Read<()> {
        if self.peek()? != wanted {
            return Err(format!("byte {}: no {:?}", self.at, wanted as char));
        }
        self.at += 1;
        Ok(())
    }

    /// A string as it is written: names and ids of the kit hold no escapes.
    fn text(&mut self) -> Read<String> {
        self.take(b'"')?;
        let from = self.at;
        while *self.text.get(self.at).ok_or("a string does not end")? != b'"' {
            self.at += 1 + usize::from(self.text[self.at] == b'\\');
        }
        self.at += 1;
        String::from_utf8(self.text[from..self.at - 1].to_vec()).map_err(|e| e.to_string())
    }

    fn word(&mut self) -> Read<&'a [u8]> {
        let from = self.at;
        while self.at < self.text.len() && matches!(self.text[self.at], b'-' | b'+' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z') {
            self.at += 1;
        }
        if from == self.at { Err(format!("byte {from}: no value")) } else { Ok(&self.text[from..self.at]) }
    }

    fn value(&mut self, depth: u32) -> Read<Json> {
        match (self.peek()?, depth) {
            (b'{' | b'[', 0) => Err("nested too deep".into()),
            (b'{', _) => {
                let mut fields = BTreeMap::new();
                self.elements(b'{', b'}', |r| {
                    let name = r.text()?;
                    r.take(b':')?;
                    let value = r.value(depth - 1)?;
                    fields.insert(name, value);
                    Ok(())
                })?;
                Ok(Json::Object(fields))
            }
            (b'[', _) => {
                self.elements(b'[', b']', |r| r.value(depth - 1).map(drop))?;
                Ok(Json::Other)
            }
            (b'"', _) => Ok(Json::Text(self.text()?)),
            _ => Ok(match self.word()? {
                b"true" => Json::Flag(true),
                b"false" => Json::Flag(false),
                _ => Json::Other,
            }),
        }
    }

    fn elements(&mut self, open: u8, close: u8, mut each: impl FnMut(&mut Self) -> Read<()>) -> Read<()> {
        self.take(open)?;
        if self.peek()? != close {
            loop {
                each(self)?;
                if self.peek()? != b',' {
                    break;
                }
                self.at += 1;
            }
        }
        self.take(close)
    }
}

fn object(line: &str) -> Read<BTreeMap<String, Json>> {
    match (Reader { text: line.as_bytes(), at: 0 }).value(32)? {
        Json::Object(fields) => Ok(fields),
        _ => Err("the line is no object".into()),
    }
}

// ---------------------------------------------------------------- the instructions

struct Facts<'a>(&'a BTreeMap<String, Json>);

impl Facts<'_> {
    fn is(&self, name: &str) -> bool {
        match self.0.get(name) {
            Some(Json::Flag(on)) => *on,
            _ => panic!("the input has no fact {}", name),
        }
    }
}

const UD: &str = r##"{"kind":"fault","vector":6,"mnemonic":"#UD","error_code":null}"##;
const GP: &str = r##"{"kind":"fault","vector":13,"mnemonic":"#GP","error_code":0}"##;
const VMFAIL: &str = r#"{"kind":"vmfail_invalid"}"#;
const EXIT_76: &str = r#"{"kind":"vm_exit","reason":76,"exit_reason":"0x4C","qualification":"0x0"}"#;
const EXIT_77: &str = r#"{"kind":"vm_exit","reason":77,"exit_reason":"0x4D","qualification":"0x0"}"#;

/// A row: where it stops, and what that results in.
type Row = (fn(&Facts) -> bool, &'static str);

const NO_VMX: Row = (|f| !f.is("vmx"), UD);
const SMM: Row = (|f| f.is("smm"), UD);
const SEAM_ROOT: Row = (|f| f.is("inSEAM") && !f.is("non_root"), UD);
const SEAM: Row = (|f| f.is("inSEAM"), UD);
const NOT_64BIT: Row = (|f| !f.is("64bit"), UD);
const USER: Row = (|f| f.is("user"), GP);
const NON_ROOT: Row = (|f| f.is("non_root"), EXIT_76);
const NO_SEAMRR: Row = (|f| !f.is("seamrr"), GP);
const MOV_SS: Row = (|f| f.is("mov_ss"), GP);
const NO_MODULE: Row = (|f| !f.is("rax63") && !f.is("seam_ready"), VMFAIL);
const BUSY: Row = (|f| f.is("rax63") && f.is("mutex"), VMFAIL);
const NO_P_SEAMLDR: Row = (|f| f.is("rax63") && !f.is("p_ready"), VMFAIL);

const SILICON: &[Row] =
    &[NO_VMX, SMM, SEAM_ROOT, NOT_64BIT, USER, NON_ROOT, NO_SEAMRR, MOV_SS, NO_MODULE, BUSY, NO_P_SEAMLDR];
const AS_PRINTED: &[Row] =
    &[NO_VMX, SMM, SEAM, NOT_64BIT, NON_ROOT, USER, NO_SEAMRR, MOV_SS, NO_MODULE, BUSY, NO_P_SEAMLDR];
const TDCALL: &[Row] = &[(|f| !f.is("non_root"), UD), USER];

fn decide(rows: &[Row], facts: &Facts) -> Option<&'static str> {
    rows.iter().find(|(stops, _)| stops(facts)).map(|(_, result)| *result)
}

fn seamcall(rows: &[Row], facts: &Facts) -> &'static str {
    decide(rows, facts).unwrap_or(if facts.is("rax63") {
        r#"{"kind":"entered","target":"P-SEAMLDR"}"#
    } else {
        r#"{"kind":"entered","target":"TDX module"}"#
    })
}

// ---------------------------------------------------------------- requests and answers

fn answer(line: &str, rows: &[Row]) -> Read<String> {
    let request = object(line)?;
    let (Some(Json::Text(id)), Some(Json::Text(set)), Some(Json::Object(input))) =
        (request.get("id"), request.get("set"), request.get("input"))
    else {
        return Err("id, set or input is missing".into());
    };
    let facts = Facts(input);
    let outcome = match set.as_str() {
        "seamcall" => seamcall(rows, &facts),
        "tdcall" => decide(TDCALL, &facts).unwrap_or(EXIT_77),
        _ => return Ok(format!(r#"{{"id":"{id}","skip":"{set} is not implemented"}}"#)),
    };
    Ok(format!(r#"{{"id":"{id}","output":{{"outcome":{outcome}}}}}"#))
}

fn main() -> ExitCode {
    let rows = if std::env::args().nth(1).as_deref() == Some("343754-002") { AS_PRINTED } else { SILICON };
    let mut out = io::stdout();
    for line in io::stdin().lock().lines() {
        match line.map_err(|e| e.to_string()).and_then(|line| answer(&line, rows)) {
            Ok(text) => writeln!(out, "{text}").and_then(|()| out.flush()).expect("standard output"),
            Err(problem) => {
                eprintln!("not a request: {problem}");
                return ExitCode::from(2);
            }
        }
    }
    ExitCode::SUCCESS
}
