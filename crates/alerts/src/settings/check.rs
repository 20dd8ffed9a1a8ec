//! Checks settings: every channel can be sent to, every route names existing channels. Replaces masks by stored secrets.

use super::{Route, Settings};
use crate::own;
use crate::scope::Scope;
use crate::validation::{Check, Invalid, LIST_MAX, bounded, check_id, filled, invalid};

/// Most channels.
const CHANNELS_MAX: usize = 20;
/// Most routes.
const ROUTES_MAX: usize = 50;
/// Percentages that a policy may have.
const PERCENTS: std::ops::RangeInclusive<u32> = 1..=quota::Thresholds::PERCENT_MAX;
/// A day.
const DIGEST_MINUTES_MAX: u32 = 24 * 60;

impl Settings {
    /// Takes the secrets of the present settings where these have masks, and checks everything.
    ///
    /// # Errors
    /// [`Invalid`] names the first invalid field.
    pub fn check(mut self, scope: &Scope, present: &Self) -> Result<Self, Invalid> {
        bounded("channels", self.channels.len(), CHANNELS_MAX)?;
        bounded("routes", self.routes.len(), ROUTES_MAX)?;
        if !(1..=DIGEST_MINUTES_MAX).contains(&self.digest_minutes) {
            return Err(invalid("digest_minutes", format!("must be from 1 to {DIGEST_MINUTES_MAX}")));
        }
        let mut ids = Vec::new();
        for (index, channel) in self.channels.iter_mut().enumerate() {
            let at = format!("channels[{index}]");
            check_id(&at, channel.id())?;
            if ids.iter().any(|id| id == channel.id()) {
                return Err(invalid(format!("{at}.id"), "is the id of another channel"));
            }
            ids.push(channel.id().to_owned());
            channel.keep(&at, present.channel(channel.id()))?;
            channel.check(&at)?;
        }
        for (index, route) in self.routes.iter().enumerate() {
            route.check(&format!("routes[{index}]"), scope, &ids)?;
        }
        own::check_all(&self.thresholds, scope)?;
        Ok(self)
    }
}

impl Route {
    fn check(&self, at: &str, scope: &Scope, ids: &[String]) -> Check {
        if let Some(types) = &self.types {
            let field = format!("{at}.types");
            named(&field, types.len())?;
            let foreign = types.iter().position(|subject| subject.is_operators() && *scope != Scope::Operators);
            if let Some(index) = foreign {
                return Err(invalid(format!("{field}[{index}]"), "concerns operators only"));
            }
        }
        if let Some(levels) = &self.levels {
            named(&format!("{at}.levels"), levels.len())?;
        }
        if let Some(thresholds) = &self.thresholds {
            let field = format!("{at}.thresholds");
            named(&field, thresholds.len())?;
            if let Some(index) = thresholds.iter().position(|percent| !PERCENTS.contains(percent)) {
                let range = format!("must be from {} to {}", PERCENTS.start(), PERCENTS.end());
                return Err(invalid(format!("{field}[{index}]"), range));
            }
        }
        let field = format!("{at}.channels");
        filled(&field, self.channels.len(), LIST_MAX)?;
        match self.channels.iter().position(|id| !ids.contains(id)) {
            Some(index) => Err(invalid(format!("{field}[{index}]"), "must be the id of a channel of these settings")),
            None => Ok(()),
        }
    }
}

fn named(field: &str, len: usize) -> Check {
    if len == 0 {
        return Err(invalid(field, "must have one entry at least, or be absent for all"));
    }
    bounded(field, len, LIST_MAX)
}
