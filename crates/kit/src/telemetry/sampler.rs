//! Which traces are recorded: the samplers of OpenTelemetry by their names in `OTEL_TRACES_SAMPLER`.

use super::trace::{Trace, TraceId};

/// All of the 63 bits that the ratio is compared with.
const ALL: u64 = 1 << 63;

/// Decides by the caller's flag, or by the trace's id, so that every program decides alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// Whether the caller's flag has precedence.
    by_parent: bool,
    /// Traces whose number is below it are recorded.
    below: u64,
}

impl Sampler {
    /// Every name, in the order of the specification.
    pub const NAMES: [&str; 6] = [
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ];

    /// No trace but those that the caller records.
    pub const BY_PARENT: Self = Self { by_parent: true, below: 0 };

    /// The sampler of that name; `ratio` is from 0 to 1, and applies to samplers by ratio. `None` for an unknown name.
    #[must_use]
    pub fn of(name: &str, ratio: f64) -> Option<Self> {
        let root = name.strip_prefix("parentbased_");
        let below = match root.unwrap_or(name) {
            "always_on" => ALL,
            "always_off" => 0,
            // The largest ratio gives the largest number exactly.
            "traceidratio" => (ratio.clamp(0.0, 1.0) * ALL as f64) as u64,
            _ => return None,
        };
        Some(Self { by_parent: root.is_some(), below })
    }

    /// Whether a span of the trace is recorded, below the caller's span where there is one.
    #[must_use]
    pub fn samples(&self, caller: Option<&Trace>, id: TraceId) -> bool {
        match caller {
            Some(caller) if self.by_parent => caller.sampled,
            Some(_) | None => self.draws(id),
        }
    }

    /// Whether a trace is recorded whose first span's flag is not known.
    #[must_use]
    pub fn draws(&self, id: TraceId) -> bool {
        let [.., a, b, c, d, e, f, g, h] = id.bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1 < self.below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(last: u8, sampled: bool) -> Trace {
        let text =
            format!("00-{}{}-b7ad6b7169203331-0{}", "1".repeat(16), format!("{last:02x}").repeat(8), u8::from(sampled));
        Trace::parse(&text).unwrap()
    }

    #[test]
    fn each_name_samples_as_the_specification_says() {
        // The ratio is half: ids below 0x80… are recorded.
        for (name, root_low, root_high, under_sampled, under_unsampled) in [
            ("always_on", true, true, true, true),
            ("always_off", false, false, false, false),
            ("traceidratio", true, false, false, false),
            ("parentbased_always_on", true, true, true, false),
            ("parentbased_always_off", false, false, true, false),
            ("parentbased_traceidratio", true, false, true, false),
        ] {
            assert!(Sampler::NAMES.contains(&name));
            let sampler = Sampler::of(name, 0.5).unwrap();
            let (low, high) = (trace(0x7f, true), trace(0x80, true));
            assert_eq!(
                (sampler.samples(None, low.id), sampler.samples(None, high.id)),
                (root_low, root_high),
                "{name}"
            );
            assert_eq!(sampler.samples(Some(&high), high.id), under_sampled, "{name}");
            let unsampled = trace(0x80, false);
            assert_eq!(sampler.samples(Some(&unsampled), unsampled.id), under_unsampled, "{name}");
        }
        assert_eq!(Sampler::of("jaeger_remote", 1.0), None);
        assert_eq!(Sampler::of("parentbased_", 1.0), None);
        assert!(Sampler::of("traceidratio", 1.0).unwrap().draws(trace(0xff, false).id));
        assert!(!Sampler::of("traceidratio", 0.0).unwrap().draws(trace(0x01, false).id));
    }
}
