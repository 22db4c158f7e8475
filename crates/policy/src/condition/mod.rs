//! Conditions of a policy: when it grants, although group and resource match.
//!
//! All kinds that are named must be met; within a kind one value is enough. What is not known does not meet a condition,
//! whichever way it is asked: a device whose country is unknown is neither inside nor outside of Germany, and an address
//! is neither in nor outside of networks of the other family alone. So a policy never grants because something is
//! missing.
//!
//! Deliberately absent: where the facts come from. The portal observes them and says what it does not know.

mod schedule;

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::schedule::{ClockTime, Day, Schedule, Window};
use crate::{ProviderName, Region};

/// Values of one list.
const MOST_VALUES: usize = 256;

/// What must be true besides group and resource; the default asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// The address from which the device speaks to the portal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Among<String>>))]
    pub remote_address: Option<Among<IpNet>>,
    /// The country of that address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Among<Region>>,
    /// Who vouched for the user; nobody did for a token that an administrator made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_provider: Option<Among<ProviderName>>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Schedule>,
    /// Whether an administrator must have verified the device.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verified_device: bool,
    /// The longest time since the user proved who they are, in seconds; at least 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication_age: Option<u64>,
}

/// One of these values, or none of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Among<T> {
    /// One of them.
    AnyOf(Vec<T>),
    /// None of them.
    NoneOf(Vec<T>),
}

/// What is known of a device and its user at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Circumstances<'a> {
    /// The address from which the device speaks to the portal.
    pub remote_address: Option<IpAddr>,
    /// The country of that address.
    pub region: Option<Region>,
    /// Who vouched for the user.
    pub auth_provider: Option<&'a str>,
    /// Whether an administrator has verified the device.
    pub is_device_verified: bool,
    /// When the user proved who they are, in Unix seconds.
    pub authenticated_at: Option<u64>,
}

/// A kind of condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields of `Conditions` say it")]
pub enum ConditionKind {
    RemoteAddress,
    Region,
    AuthProvider,
    Time,
    VerifiedDevice,
    AuthenticationAge,
}

/// A condition that is not met, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Unmet {
    /// Which one.
    pub condition: ConditionKind,
    /// Nobody knows whether it would be.
    pub is_unknown: bool,
}

/// Why conditions are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// No zone has this name.
    #[error("there is no time zone `{0}`")]
    UnknownZone(String),
    /// Not a time of day.
    #[error("`{0}` is not a time of day (`00:00` to `24:00`)")]
    BadTime(String),
    /// A window on no day.
    #[error("a window needs a day")]
    NoDays,
    /// A window without a moment in it.
    #[error("the window from {from} to {to} is empty (for a whole day write 00:00 to 24:00)")]
    EmptyWindow {
        /// Its beginning.
        from: ClockTime,
        /// Its end.
        to: ClockTime,
    },
    /// Too many values, or none.
    #[error("there must be 1 to {most} {what}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// Nobody could meet it.
    #[error("an authentication age below {least} s would lock everybody out")]
    AgeTooShort {
        /// The least age.
        least: u64,
    },
}

impl Conditions {
    /// The least age that can be asked for.
    const LEAST_AGE: u64 = 60;

    /// Checks what the types do not: that every list has values, but not too many.
    ///
    /// # Errors
    ///
    /// The first fault.
    pub fn check(&self) -> Result<(), ConditionError> {
        let lists = [
            self.remote_address.as_ref().map(Among::len),
            self.region.as_ref().map(Among::len),
            self.auth_provider.as_ref().map(Among::len),
        ];
        if lists.into_iter().flatten().any(|length| length == 0 || length > MOST_VALUES) {
            return Err(ConditionError::Count { what: "values in a condition", most: MOST_VALUES });
        }
        match self.authentication_age {
            Some(age) if age < Self::LEAST_AGE => Err(ConditionError::AgeTooShort { least: Self::LEAST_AGE }),
            _ => Ok(()),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Every condition that is not met at `now` (Unix seconds).
    #[must_use]
    pub fn unmet(&self, now: u64, circumstances: &Circumstances<'_>) -> Vec<Unmet> {
        let Circumstances { remote_address, region, auth_provider, is_device_verified, authenticated_at } =
            *circumstances;
        let address = remote_address.map(|address| address.to_canonical());
        let answers = [
            (
                ConditionKind::RemoteAddress,
                self.remote_address.as_ref().map(|among| address_among(among, address)),
            ),
            (ConditionKind::Region, self.region.as_ref().map(|among| among.answer(region.as_ref()))),
            (
                ConditionKind::AuthProvider,
                self.auth_provider.as_ref().map(|among| provider_among(among, auth_provider)),
            ),
            (ConditionKind::Time, self.time.as_ref().map(|schedule| Some(schedule.is_open(now)))),
            (ConditionKind::VerifiedDevice, self.verified_device.then_some(Some(is_device_verified))),
            (
                ConditionKind::AuthenticationAge,
                self.authentication_age.map(|age| authenticated_at.map(|at| now < at.saturating_add(age))),
            ),
        ];
        let unmet = |(condition, answer): (ConditionKind, Option<Option<bool>>)| match answer {
            None | Some(Some(true)) => None,
            Some(answer) => Some(Unmet { condition, is_unknown: answer.is_none() }),
        };
        answers.into_iter().filter_map(unmet).collect()
    }

    /// When conditions that are met at `now` are so no longer by themselves, if that is within `horizon` seconds.
    #[must_use]
    pub fn end(&self, now: u64, horizon: u64, circumstances: &Circumstances<'_>) -> Option<u64> {
        let closes = self.time.as_ref().and_then(|schedule| schedule.closes(now, horizon));
        let aged = self.authentication_age.zip(circumstances.authenticated_at);
        let aged =
            aged.map(|(age, at)| at.saturating_add(age)).filter(|end| *end <= now.saturating_add(horizon));
        closes.into_iter().chain(aged).min()
    }

    /// When it may next be otherwise by itself whether they are met, if that is within `horizon` seconds of `now`.
    #[must_use]
    pub fn turns(&self, now: u64, horizon: u64, circumstances: &Circumstances<'_>) -> Option<u64> {
        let turn = self.time.as_ref().and_then(|schedule| schedule.turns(now, horizon));
        let end = self.end(now, horizon, circumstances).filter(|end| *end > now);
        turn.into_iter().chain(end).min()
    }
}

/// Completes "it is not granted …".
impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.condition {
            ConditionKind::RemoteAddress => "from this address",
            ConditionKind::Region => "from this country",
            ConditionKind::AuthProvider => "after this way of signing in",
            ConditionKind::Time => "at this time",
            ConditionKind::VerifiedDevice => "to a device that is not verified",
            ConditionKind::AuthenticationAge => "so long after signing in",
        })?;
        if self.is_unknown { f.write_str(" (it is not known)") } else { Ok(()) }
    }
}

impl<T: PartialEq> Among<T> {
    /// Whether the value is allowed; `None` when it is not known.
    fn answer(&self, value: Option<&T>) -> Option<bool> {
        let value = value?;
        Some(match self {
            Self::AnyOf(values) => values.contains(value),
            Self::NoneOf(values) => !values.contains(value),
        })
    }
}

impl<T> Among<T> {
    const fn len(&self) -> usize {
        match self {
            Self::AnyOf(values) | Self::NoneOf(values) => values.len(),
        }
    }
}

/// As [`Among::answer`], by name.
fn provider_among(among: &Among<ProviderName>, name: Option<&str>) -> Option<bool> {
    let name = name?;
    let contains = |names: &[ProviderName]| names.iter().any(|known| known.as_str() == name);
    Some(match among {
        Among::AnyOf(names) => contains(names),
        Among::NoneOf(names) => !contains(names),
    })
}

/// An address of a family of which no network is named is neither in nor outside of them.
fn address_among(among: &Among<IpNet>, address: Option<IpAddr>) -> Option<bool> {
    let address = address?;
    let contains = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
    match among {
        Among::AnyOf(networks) => Some(contains(networks)),
        Among::NoneOf(networks) => {
            let is_of_family = |network: &IpNet| network.addr().is_ipv4() == address.is_ipv4();
            networks.iter().any(is_of_family).then(|| !contains(networks))
        }
    }
}

#[cfg(test)]
mod tests;
