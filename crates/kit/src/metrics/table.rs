//! The table that declares a part's metrics, [`metrics!`](crate::metrics!), and the kinds of metrics in it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::exponential_buckets;
use prometheus_client::metrics::{MetricType, TypedMetric};

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;

/// A gauge of a number that need not be whole.
pub type FloatGauge = Gauge<f64, AtomicU64>;

/// Declares a part of the server's metrics, a row for each: its field, kind, labels, name and help. The name is without the
/// suffix that its kind adds, as `_total`. A histogram has its first bucket and the number of its buckets, each twice the one
/// before. A row may end with the label values of the series that exist from the start: a rate misses the first increment of
/// a new series.
///
/// ```ignore
/// metrics! {
///     /// The store's metrics.
///     pub struct StoreMetrics {
///         pub waiting: Gauge = "store_waiting", "Calls that wait";
///         pub errors: Counter["kind"] = "store_errors", "Calls that failed", [["timeout"], ["reply"]];
///         pub seconds: Histogram(0.001, 10)["use"] = "store_seconds", "Time of one call in seconds";
///     }
/// }
/// ```
#[macro_export]
macro_rules! metrics {
    (
        $(#[$meta:meta])*
        $visible:vis struct $Part:ident {$(
            $(#[$doc:meta])*
            $access:vis $field:ident: $Kind:ident $(($first:expr, $buckets:expr))? $([$($label:literal),+])?
                = $name:literal, $help:literal $(, $series:expr)?;
        )+}
    ) => {
        $(#[$meta])*
        #[derive(Debug)]
        $visible struct $Part {
            $($(#[$doc])* $access $field: $crate::metrics!(@type $Kind $([$($label),+])?),)+
        }

        impl Default for $Part {
            fn default() -> Self {
                Self {
                    $($field: $crate::metrics!(@new $Kind $(($first, $buckets))? $([$($label),+])? $(, $series)?),)+
                }
            }
        }

        impl $crate::metrics::Part for $Part {
            fn register(&self, registry: &mut $crate::metrics::Registry) {
                $(registry.register($name, $help, self.$field.clone());)+
            }
        }
    };
    (@type $Kind:ident) => { $crate::metrics::$Kind };
    (@type $Kind:ident [$($label:literal),+]) => {
        $crate::metrics::Labelled<$crate::metrics::$Kind, { [$($label),+].len() }>
    };
    (@new $Kind:ident) => { $crate::metrics::$Kind::default() };
    (@new $Kind:ident ($first:expr, $buckets:expr)) => { $crate::metrics::histogram($first, $buckets) };
    (@new $Kind:ident $(($first:expr, $buckets:expr))? [$($label:literal),+] $(, $series:expr)?) => {
        $crate::metrics::Labelled::new([$($label),+], || $crate::metrics!(@new $Kind $(($first, $buckets))?))
            $(.starting_with($series))?
    };
}

/// A histogram whose buckets double from the first one.
#[must_use]
pub fn histogram(first: f64, buckets: u16) -> Histogram {
    Histogram::new(exponential_buckets(first, 2.0, buckets))
}

/// A count as the value of a gauge, which is signed: beyond its range it is the largest value.
#[must_use]
pub fn signed(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];

/// A metric with labels: a series for each of their values. Values come from our own enums, or are bounded in number, so that
/// no request can create a series.
#[derive(Clone, Debug)]
pub struct Labelled<M, const N: usize> {
    names: [&'static str; N],
    family: Family<Labels<N>, M>,
}

impl<M, const N: usize> Labelled<M, N> {
    /// Labels of these names, and what makes a new series.
    #[must_use]
    pub fn new(names: [&'static str; N], make: fn() -> M) -> Self {
        Self { names, family: Family::new_with_constructor(make) }
    }

    /// The same, with these series.
    #[must_use]
    pub fn starting_with<V: Into<Cow<'static, str>>>(self, series: impl IntoIterator<Item = [V; N]>) -> Self {
        series.into_iter().for_each(|values| drop(self.of(values)));
        self
    }

    /// The series of these values, in the order of the labels.
    pub fn of<V: Into<Cow<'static, str>>>(&self, values: [V; N]) -> impl Deref<Target = M> {
        self.family.get_or_create(&self.labels(values))
    }

    /// Removes the series of these values.
    pub fn remove<V: Into<Cow<'static, str>>>(&self, values: [V; N]) {
        self.family.remove(&self.labels(values));
    }

    /// Removes every series.
    pub fn clear(&self) {
        self.family.clear();
    }

    fn labels<V: Into<Cow<'static, str>>>(&self, values: [V; N]) -> Labels<N> {
        let mut names = self.names.into_iter();
        values.map(|value| (names.next().unwrap_or_default(), value.into()))
    }
}

impl<M: EncodeMetric + TypedMetric, const N: usize> EncodeMetric for Labelled<M, N> {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.family.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        self.family.metric_type()
    }

    fn is_empty(&self) -> bool {
        EncodeMetric::is_empty(&self.family)
    }
}
