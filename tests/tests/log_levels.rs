//! What the kernel makes of `--log SPEC`. The parser is the kernel's own, tried on the host.

#[path = "../../kernel/src/logging/levels.rs"]
pub mod levels;
#[path = "../../kernel/src/logging/spec.rs"]
pub mod spec;

use levels::Levels;
use log::LevelFilter::{Debug, Error, Info, Off, Trace, Warn};
use spec::SpecError;

fn levels(spec: &str) -> Levels {
    let levels = Levels::new();
    levels.set(spec).unwrap();
    levels
}

#[test]
fn without_a_word_it_is_info() {
    let levels = Levels::new();
    assert_eq!((levels.level_of("kernel::swap"), levels.most()), (Info, Info));
    assert_eq!(levels.to_string(), "info");
}

#[test]
fn one_level_is_for_all() {
    for (spec, level) in
        [("off", Off), ("error", Error), ("warn", Warn), ("DEBUG", Debug), (" trace ", Trace)]
    {
        let levels = levels(spec);
        assert_eq!((levels.level_of("mm"), levels.most()), (level, level));
    }
}

#[test]
fn a_module_has_a_level_of_its_own_with_all_that_is_in_it() {
    let levels = levels("mm=trace,warn");
    assert_eq!(levels.level_of("mm"), Trace);
    assert_eq!(levels.level_of("mm::reclaim::scan"), Trace);
    for other in ["kernel", "mmap", "m", "", "kernel::mm"] {
        assert_eq!(levels.level_of(other), Warn, "{other}");
    }
    assert_eq!(levels.most(), Trace);
}

#[test]
fn the_longest_name_decides_whatever_the_order() {
    for spec in [
        "kernel=debug,kernel::swap=off,kernel::swap::slots=error",
        "kernel::swap::slots=error,kernel::swap=off,kernel=debug",
    ] {
        let levels = levels(spec);
        assert_eq!(levels.level_of("kernel::cpus"), Debug);
        assert_eq!(levels.level_of("kernel::swap"), Off);
        assert_eq!(levels.level_of("kernel::swap::slots"), Error);
        assert_eq!((levels.level_of("drivers"), levels.most()), (Info, Debug));
    }
}

#[test]
fn what_is_no_spec_changes_nothing() {
    let levels = levels("mm=trace,warn");
    let long = format!("{}=info", "m".repeat(33));
    let many: String = (0..9).map(|number| format!("m{number}=info,")).collect();
    for (spec, error) in [
        ("", SpecError::NoLevel),
        ("loud", SpecError::NoLevel),
        ("mm", SpecError::NoLevel),
        ("info,,warn", SpecError::NoLevel),
        ("mm=", SpecError::NoLevel),
        ("mm=trace=info", SpecError::NoLevel),
        ("=trace", SpecError::NoName),
        (&long, SpecError::NoName),
        (many.trim_end_matches(','), SpecError::TooMany),
    ] {
        assert_eq!(levels.set(spec), Err(error), "{spec}");
        assert_eq!(levels.to_string(), "warn,mm=trace");
    }
}

#[test]
fn what_is_shown_can_be_said_again() {
    for spec in
        ["info", "off,mm=trace,kernel::swap=debug", "error,a=off,b=off,c=off,d=off,e=off,f=off,g=off,h=off"]
    {
        assert_eq!(levels(spec).to_string(), spec);
    }
    // Names of an earlier spec are gone, long ones too.
    let levels = levels("off,kernel::swap=debug");
    levels.set("mm=trace").unwrap();
    assert_eq!((levels.to_string().as_str(), levels.level_of("kernel::swap")), ("info,mm=trace", Info));
}
