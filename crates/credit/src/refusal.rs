//! Why a new charge is refused: restrictions of the stage first, then the limit. Captures and refunds of earlier charges are never
//! asked.

use std::collections::BTreeSet;

use serde::Serialize;
use utoipa::ToSchema;

use crate::{Band, EffectiveLimit, StageEffect, Standing, Terms};

/// Why the credit line admits no charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CreditRefusal {
    /// The stage admits no new charges.
    Frozen,
    /// The grade or the stage does not allow the channel.
    Channel,
    /// The charge exceeds the limit that the stage leaves, and not the limit without the stage's cap.
    Restricted,
    /// The charge exceeds the limit.
    Exhausted,
}

impl CreditRefusal {
    /// The code of answers.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Frozen => "CREDIT_FROZEN",
            Self::Channel => "CREDIT_CHANNEL",
            Self::Restricted => "CREDIT_RESTRICTED",
            Self::Exhausted => "CREDIT_EXHAUSTED",
        }
    }
}

/// What a new charge is checked against.
#[derive(Clone, Copy, Debug)]
pub struct CreditCheck<'a> {
    pub terms: &'a Terms,
    pub standing: &'a Standing,
    /// The band of the grade in force.
    pub band: &'a Band,
    pub limit: EffectiveLimit,
}

impl CreditCheck<'_> {
    /// Why a charge by a channel is refused whatever its amount. A limit that a person has set lifts the stage's restrictions.
    #[must_use]
    pub fn restriction(&self, channel: Option<&str>) -> Option<CreditRefusal> {
        let restricts = |effect| !self.limit.is_overridden && self.standing.effects.contains(&effect);
        if restricts(StageEffect::NoNewCharges) {
            return Some(CreditRefusal::Frozen);
        }
        let by_stage = self.terms.listed_channels.as_ref().filter(|_| restricts(StageEffect::ListedChannelsOnly));
        let is_listed = |list: &BTreeSet<String>| channel.is_some_and(|channel| list.contains(channel));
        let is_allowed = [self.band.channels.as_ref(), by_stage].into_iter().flatten().all(is_listed);
        (!is_allowed).then_some(CreditRefusal::Channel)
    }

    /// Why an amount on top of a net exposure is refused, where no restriction does.
    #[must_use]
    pub const fn exceeded(&self, net_exposure: i64, amount: i64) -> Option<CreditRefusal> {
        let after = net_exposure.saturating_add(amount);
        if after <= self.limit.limit {
            None
        } else if after <= self.limit.uncapped {
            Some(CreditRefusal::Restricted)
        } else {
            Some(CreditRefusal::Exhausted)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BasisPoints, Scorecard, Stage, StageTable};

    fn standing(stage: Stage) -> Standing {
        Standing {
            stage,
            days_past_due: 0,
            cap_bp: BasisPoints::FULL,
            effects: StageTable::default().effects(stage),
            in_default_since: None,
            probation_until: None,
            left_default_on: None,
        }
    }

    /// Stage, channels of the grade and of the terms, an override, the channel, and what refuses it.
    #[test]
    fn stage_and_channels_restrict() {
        use CreditRefusal::{Channel, Frozen};
        use Stage::{Current, Defaulted, Restricted, Watch};
        let (card, both) = (Some(&["card"][..]), Some(&["card", "wallet"][..]));
        let table = [
            (Current, None, None, false, Some("card"), None),
            (Current, None, None, false, None, None),
            (Current, card, None, false, Some("card"), None),
            (Current, card, None, false, Some("wallet"), Some(Channel)),
            (Current, card, None, false, None, Some(Channel)),
            (Watch, None, card, false, Some("wallet"), None),
            (Restricted, None, None, false, Some("wallet"), None),
            (Restricted, None, card, false, Some("card"), None),
            (Restricted, None, card, false, Some("wallet"), Some(Channel)),
            (Restricted, both, card, false, Some("wallet"), Some(Channel)),
            (Restricted, card, both, false, Some("wallet"), Some(Channel)),
            (Restricted, None, card, true, Some("wallet"), None),
            (Restricted, card, None, true, Some("wallet"), Some(Channel)),
            (Stage::Frozen, None, None, false, Some("card"), Some(Frozen)),
            (Defaulted, None, None, false, None, Some(Frozen)),
            (Defaulted, None, None, true, None, None),
        ];
        let set = |names: Option<&[&str]>| names.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        for (stage, of_grade, of_stage, is_overridden, channel, expected) in table {
            let terms = Terms { listed_channels: set(of_stage), ..Terms::default() };
            let band = Band { channels: set(of_grade), ..Scorecard::default().bands.0[0].clone() };
            let limit = EffectiveLimit { limit: 100, uncapped: 100, is_overridden };
            let check = CreditCheck { terms: &terms, standing: &standing(stage), band: &band, limit };
            assert_eq!(check.restriction(channel), expected, "{stage:?} {of_grade:?} {of_stage:?} {channel:?}");
        }
    }

    #[test]
    fn a_refusal_says_whether_the_cap_or_the_limit_decided() {
        use CreditRefusal::{Exhausted, Restricted};
        let table = [
            // limit, uncapped, net exposure, amount
            (50, 100, 40, 10, None),
            (50, 100, 40, 11, Some(Restricted)),
            (50, 100, 40, 60, Some(Restricted)),
            (50, 100, 40, 61, Some(Exhausted)),
            (100, 100, 40, 61, Some(Exhausted)),
            (0, 0, -30, 30, None),
            (0, 0, -30, 31, Some(Exhausted)),
            (i64::MAX, i64::MAX, i64::MAX, 1, None),
        ];
        let (terms, band) = (Terms::default(), Scorecard::default().bands.0[0].clone());
        for (limit, uncapped, net, amount, expected) in table {
            let limit = EffectiveLimit { limit, uncapped, is_overridden: false };
            let check = CreditCheck { terms: &terms, standing: &standing(Stage::Current), band: &band, limit };
            assert_eq!(check.exceeded(net, amount), expected, "{limit:?} {net} {amount}");
        }
        let codes = [CreditRefusal::Frozen, CreditRefusal::Channel, Restricted, Exhausted].map(CreditRefusal::code);
        assert_eq!(codes, ["CREDIT_FROZEN", "CREDIT_CHANNEL", "CREDIT_RESTRICTED", "CREDIT_EXHAUSTED"]);
    }
}
