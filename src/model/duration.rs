//! Durations as operators write them: `90s`, `10m`, `1h 30m`. The printed form parses back to the same duration.

use std::time::Duration;

/// Reads a duration: numbers with units, added up (`s`, `m`, `h`, `d` and the other units of the crate `humantime`).
///
/// # Errors
/// The allowed form, in words.
pub fn parse(text: &str) -> Result<Duration, String> {
    // `humantime` reads M as a month. People who write it usually mean minutes, and get a hold of thirty days.
    if text.contains('M') {
        let given: String = text.chars().take(80).collect();
        let minutes = given.replace('M', "m");
        return Err(format!(
            "{given:?} has the unit M, which is a month: write {minutes} for minutes, or a number of days (30d)"
        ));
    }
    humantime::parse_duration(text).map_err(|_| {
        let given: String = text.chars().take(80).collect();
        let hint = if text.parse::<u64>().is_ok() { format!(" (it has no unit: {text}s?)") } else { String::new() };
        format!("{given:?} is not a duration{hint}; allowed are numbers with a unit, s, m, h or d: 90s, 10m, 1h 30m")
    })
}

/// The shortest exact form with one unit: `10m`, `90s`, `7d`. A duration with a fraction of a second prints all its
/// parts.
pub fn print(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_nanos() > 0 {
        return humantime::format_duration(duration).to_string();
    }
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let unit = units.into_iter().find(|(length, _)| seconds > 0 && seconds.is_multiple_of(*length));
    unit.map_or_else(|| format!("{seconds}s"), |(length, unit)| format!("{}{unit}", seconds / length))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_parse_and_print_with_units() {
        let check = |text: &str, seconds: u64, printed: &str| {
            assert_eq!(parse(text).unwrap(), Duration::from_secs(seconds), "{text}");
            assert_eq!(print(Duration::from_secs(seconds)), printed);
        };
        check("10m", 600, "10m");
        check("60s", 60, "1m");
        check("1h 30m", 5400, "90m");
        check("90s", 90, "90s");
        check("30d", 2_592_000, "30d");
        check("0s", 0, "0s");
    }

    #[test]
    fn number_without_a_unit_gets_a_hint() {
        let error = parse("60").unwrap_err();
        assert!(error.contains("it has no unit: 60s?"), "{error}");
        for bad in ["", "m", "-5s", "10x", "99999999999999999999s", "ten minutes"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_capital_m_is_refused_because_it_is_a_month() {
        for (text, minutes) in [("1M", "1m"), ("1h 30M", "1h 30m")] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(&format!("write {minutes} for minutes")), "{error}");
        }
        assert_eq!(parse("1month").unwrap(), humantime::parse_duration("1month").unwrap());
    }

    proptest! {
        #[test]
        fn printed_duration_parses_back(seconds in 0..u64::from(u32::MAX), nanos in prop_oneof![Just(0), 0..1_000_000_000u32]) {
            let duration = Duration::new(seconds, nanos);
            prop_assert_eq!(parse(&print(duration)).unwrap(), duration);
        }

        #[test]
        fn no_input_panics(text in "[0-9]{0,22}[a-z]{0,7}.{0,5}") {
            let _ = parse(&text);
        }
    }
}
