//! What all credit lines come to, as metrics: exposure, what is past due, and the number of lines. A server publishes them after each
//! round of its own that has seen every line.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use quota::Currency;
use sluice_credit::Ageing;
use sluice_kit::metrics::{Gauge, Labelled};
use sluice_lines::CreditDay;

sluice_kit::metrics! {
    /// What all credit lines come to. Amounts are minor units.
    pub struct CreditMetrics {
        exposure: Gauge["currency", "grade"] = "sluice_credit_exposure",
            "What accounts use of their credit lines, minor units, as this server's last sweep found it";
        limits: Gauge["currency", "grade"] = "sluice_credit_limit",
            "The sum of the credit limits in force, minor units, as this server's last sweep found it";
        past_due: Gauge["currency", "days"] = "sluice_credit_past_due",
            "What is past due on credit lines, by days past due, minor units, as this server's last sweep found it";
        stages: Gauge["currency", "stage", "grade"] = "sluice_credit_lines_by_stage",
            "Credit lines by stage and grade, as this server's last sweep found them";
    }
}

/// The sums of a round, by the values of their labels.
#[derive(Debug, Default)]
pub(super) struct Portfolio {
    exposure: BTreeMap<[&'static str; 2], i64>,
    limits: BTreeMap<[&'static str; 2], i64>,
    past_due: BTreeMap<[&'static str; 2], i64>,
    stages: BTreeMap<[&'static str; 3], i64>,
}

impl Portfolio {
    /// Adds a line on its business day, with what the account uses of it.
    pub(super) fn add(&mut self, currency: Currency, day: &CreditDay, exposure: i64) {
        let (currency, grade) = (currency.code(), day.grade.as_str());
        add(&mut self.exposure, [currency, grade], exposure);
        add(&mut self.limits, [currency, grade], day.limit.limit);
        let Ageing { not_past_due: _, days_1_to_30, days_31_to_60, days_61_to_90, days_over_90 } = day.overdue.ageing;
        for (days, amount) in [
            ("1_to_30", days_1_to_30),
            ("31_to_60", days_31_to_60),
            ("61_to_90", days_61_to_90),
            ("over_90", days_over_90),
        ] {
            add(&mut self.past_due, [currency, days], amount);
        }
        add(&mut self.stages, [currency, day.standing.stage.as_str(), grade], 1);
    }
}

fn add<const N: usize>(sums: &mut BTreeMap<[&'static str; N], i64>, labels: [&'static str; N], amount: i64) {
    let sum = sums.entry(labels).or_default();
    *sum = sum.saturating_add(amount);
}

/// Publishes the sums of the last round.
#[derive(Debug)]
pub(super) struct Publisher {
    metrics: Arc<CreditMetrics>,
    published: Mutex<Portfolio>,
}

impl Publisher {
    pub(super) fn new(metrics: Arc<CreditMetrics>) -> Self {
        Self { metrics, published: Mutex::default() }
    }

    /// Replaces what was published before; without lines, as where another server publishes them, nothing is left.
    pub(super) fn publish(&self, portfolio: Portfolio) {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let CreditMetrics { exposure, limits, past_due, stages } = &*self.metrics;
        replace(exposure, &published.exposure, &portfolio.exposure);
        replace(limits, &published.limits, &portfolio.limits);
        replace(past_due, &published.past_due, &portfolio.past_due);
        replace(stages, &published.stages, &portfolio.stages);
        *published = portfolio;
    }
}

/// Sets each series, and removes those that have no sum any more.
fn replace<const N: usize>(
    family: &Labelled<Gauge, N>,
    before: &BTreeMap<[&'static str; N], i64>,
    now: &BTreeMap<[&'static str; N], i64>,
) {
    for (labels, sum) in now {
        family.of(*labels).set(*sum);
    }
    before.keys().filter(|labels| !now.contains_key(*labels)).for_each(|labels| family.remove(*labels));
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_kit::metrics::Metrics;

    #[test]
    fn only_the_last_round_is_published() {
        let metrics = Metrics::default();
        let publisher = Publisher::new(metrics.part());
        let with = |currency, amount| {
            let mut portfolio = Portfolio::default();
            add(&mut portfolio.exposure, [currency, "B"], amount);
            add(&mut portfolio.exposure, [currency, "B"], amount);
            portfolio
        };
        let series = |text: &str| metrics.encode().lines().filter(|line| line.contains(text)).count();
        publisher.publish(with("USD", 40));
        assert_eq!(series("sluice_credit_exposure{currency=\"USD\",grade=\"B\"} 80"), 1);
        publisher.publish(with("EUR", -5));
        assert_eq!(series("sluice_credit_exposure{currency=\"EUR\",grade=\"B\"} -10"), 1);
        assert_eq!(series("sluice_credit_exposure{currency=\"USD\""), 0);
        publisher.publish(Portfolio::default());
        assert_eq!(series("sluice_credit_exposure{"), 0);
    }
}
