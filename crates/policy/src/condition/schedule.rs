//! Times of the week, by the clock on a wall somewhere.
//!
//! Whether a moment lies in a schedule is asked of that clock: which day and time does it show? So a window that covers
//! an hour which the clock shows twice is open twice, and one that lies in an hour which it skips is not open at all.
//! A window may go over midnight; it belongs to the day on which it begins. When a schedule closes next is found at the
//! few moments at which it can: an end of a window, and a change of the clock.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{DateTime, Time, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan as _};
use serde::{Deserialize, Serialize};

use super::ConditionError;

/// Windows of a schedule.
const MOST_WINDOWS: usize = 64;

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// Windows in one time zone; open while any of them is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Schedule {
    zone: TimeZone,
    written: Written,
}

/// A schedule as people write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
struct Written {
    /// Name of the zone in the IANA database.
    time_zone: String,
    windows: Vec<Window>,
}

/// From one time of day to another, on some days of the week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Days on which it begins.
    pub days: Vec<Day>,
    /// When it opens.
    pub from: ClockTime,
    /// When it closes; a time not after `from` is on the next day.
    pub to: ClockTime,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "their names say it")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    const fn weekday(self) -> Weekday {
        match self {
            Self::Mon => Weekday::Monday,
            Self::Tue => Weekday::Tuesday,
            Self::Wed => Weekday::Wednesday,
            Self::Thu => Weekday::Thursday,
            Self::Fri => Weekday::Friday,
            Self::Sat => Weekday::Saturday,
            Self::Sun => Weekday::Sunday,
        }
    }
}

/// A time of day to the minute, `00:00` to `24:00`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClockTime(u16);

impl Schedule {
    /// A schedule in the zone of this name in the IANA database.
    ///
    /// # Errors
    ///
    /// When there is no such zone, or a window is empty or one of too many.
    pub fn new(time_zone: &str, windows: Vec<Window>) -> Result<Self, ConditionError> {
        Written { time_zone: time_zone.to_owned(), windows }.try_into()
    }

    /// Whether it is open at `now` (Unix seconds).
    #[must_use]
    pub fn is_open(&self, now: u64) -> bool {
        timestamp(now).is_some_and(|now| self.is_open_at(now))
    }

    /// When it closes, if it is open at `now` and closes within `horizon` seconds.
    #[must_use]
    pub fn closes(&self, now: u64, horizon: u64) -> Option<u64> {
        self.is_open(now).then(|| self.turns(now, horizon)).flatten()
    }

    /// When it next closes or opens, if that is within `horizon` seconds of `now`.
    #[must_use]
    pub fn turns(&self, now: u64, horizon: u64) -> Option<u64> {
        let (begin, end) = (timestamp(now)?, timestamp(now.saturating_add(horizon))?);
        let is_open = self.is_open_at(begin);
        let mut moments = self.moments(begin, end);
        moments.sort_unstable();
        let turn =
            moments.into_iter().find(|moment| *moment > begin && self.is_open_at(*moment) != is_open)?;
        u64::try_from(turn.as_second()).ok().filter(|_| turn <= end)
    }

    fn is_open_at(&self, now: Timestamp) -> bool {
        let shown = self.zone.to_datetime(now);
        self.written.windows.iter().any(|window| window.covers(shown))
    }

    /// All moments between these two at which it may close or open, in no order.
    fn moments(&self, begin: Timestamp, end: Timestamp) -> Vec<Timestamp> {
        let changes = self.zone.following(begin).map(|change| change.timestamp());
        let mut moments: Vec<_> = changes.take_while(|moment| *moment <= end).collect();
        let (mut date, last) = (self.zone.to_datetime(begin).date(), self.zone.to_datetime(end).date());
        while date <= last {
            let windows = self.written.windows.iter();
            for time in windows.flat_map(|window| [window.from, window.to]) {
                let Some(at) = time.on(date).map(|at| self.zone.to_ambiguous_timestamp(at)) else { continue };
                // The clock may show it twice.
                moments.extend(at.earlier().ok());
                moments.extend(at.later().ok());
            }
            let Ok(next) = date.tomorrow() else { break };
            date = next;
        }
        moments
    }
}

impl Window {
    /// Whether it is open when the clock shows this.
    fn covers(&self, shown: DateTime) -> bool {
        let minute = shown.hour() as u16 * 60 + shown.minute() as u16;
        let begins = |weekday: Weekday| self.days.iter().any(|day| day.weekday() == weekday);
        let (today, yesterday) = (shown.weekday(), shown.weekday().previous());
        if self.is_overnight() {
            begins(today) && minute >= self.from.0 || begins(yesterday) && minute < self.to.0
        } else {
            begins(today) && (self.from.0..self.to.0).contains(&minute)
        }
    }

    const fn is_overnight(&self) -> bool {
        self.to.0 <= self.from.0
    }

    fn check(&self) -> Result<(), ConditionError> {
        if self.days.is_empty() {
            return Err(ConditionError::NoDays);
        }
        if self.from == self.to || self.from.0 == DAY {
            return Err(ConditionError::EmptyWindow { from: self.from, to: self.to });
        }
        Ok(())
    }
}

impl ClockTime {
    /// That time as the clock shows it; midnight at the end of a day is the next day's first moment.
    fn on(self, date: jiff::civil::Date) -> Option<DateTime> {
        let midnight = date.to_datetime(Time::midnight());
        midnight.checked_add(i64::from(self.0).minutes()).ok()
    }
}

impl FromStr for ClockTime {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        let error = || ConditionError::BadTime(text.chars().take(16).collect());
        let digits = |part: &str| {
            let is_plain = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            is_plain.then(|| part.parse::<u16>().ok()).flatten()
        };
        let (hours, minutes) = text.split_once(':').ok_or_else(error)?;
        let (hours, minutes) = digits(hours).zip(digits(minutes)).ok_or_else(error)?;
        let minute = hours * 60 + minutes;
        if minutes < 60 && minute <= DAY { Ok(Self(minute)) } else { Err(error()) }
    }
}

impl fmt::Display for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl fmt::Debug for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for ClockTime {
    type Error = ConditionError;

    fn try_from(text: String) -> Result<Self, ConditionError> {
        text.parse()
    }
}

impl From<ClockTime> for String {
    fn from(time: ClockTime) -> Self {
        time.to_string()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Schedule {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        Written::schema()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Schedule {
    fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>)>) {
        Written::schemas(schemas);
    }
}

impl TryFrom<Written> for Schedule {
    type Error = ConditionError;

    fn try_from(written: Written) -> Result<Self, ConditionError> {
        // The database that was built in: all nodes give the same answer, whatever is installed beside them.
        let zone = TimeZoneDatabase::bundled().get(&written.time_zone);
        let zone =
            zone.map_err(|_| ConditionError::UnknownZone(written.time_zone.chars().take(64).collect()))?;
        if written.windows.is_empty() || written.windows.len() > MOST_WINDOWS {
            return Err(ConditionError::Count { what: "windows", most: MOST_WINDOWS });
        }
        written.windows.iter().try_for_each(Window::check)?;
        Ok(Self { zone, written })
    }
}

impl From<Schedule> for Written {
    fn from(schedule: Schedule) -> Self {
        schedule.written
    }
}

fn timestamp(seconds: u64) -> Option<Timestamp> {
    Timestamp::from_second(i64::try_from(seconds).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HORIZON: u64 = 8 * 60 * 60;
    const WORKDAYS: [Day; 5] = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri];
    const DAYS: [Day; 7] = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri, Day::Sat, Day::Sun];

    fn window(days: &[Day], from: &str, to: &str) -> Window {
        Window { days: days.to_vec(), from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    fn schedule(zone: &str, windows: &[Window]) -> Schedule {
        Schedule::new(zone, windows.to_vec()).unwrap()
    }

    /// Unix seconds of what a clock in UTC shows.
    fn at(text: &str) -> u64 {
        text.parse::<Timestamp>().unwrap().as_second().try_into().unwrap()
    }

    #[test]
    fn office_hours() {
        let schedule = schedule("Europe/Berlin", &[window(&WORKDAYS, "08:00", "18:00")]);
        // A Friday in winter: Berlin is an hour ahead.
        assert!(!schedule.is_open(at("2026-11-27T06:59:59Z")));
        assert!(schedule.is_open(at("2026-11-27T07:00:00Z")));
        assert_eq!(schedule.closes(at("2026-11-27T10:30:00Z"), HORIZON), Some(at("2026-11-27T17:00:00Z")));
        assert_eq!(schedule.closes(at("2026-11-27T07:00:00Z"), HORIZON), None, "not within eight hours");
        assert!(
            !schedule.is_open(at("2026-11-27T17:00:00Z")) && !schedule.is_open(at("2026-11-28T10:00:00Z"))
        );
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let schedule = schedule("UTC", &[window(&[Day::Fri], "22:00", "06:00")]);
        assert!(!schedule.is_open(at("2026-11-27T05:00:00Z")), "that night began on a Thursday");
        assert!(schedule.is_open(at("2026-11-27T23:00:00Z")) && schedule.is_open(at("2026-11-28T05:59:59Z")));
        assert_eq!(schedule.closes(at("2026-11-27T23:00:00Z"), HORIZON), Some(at("2026-11-28T06:00:00Z")));
    }

    #[test]
    fn windows_that_touch_are_one() {
        let windows = [window(&DAYS, "00:00", "12:00"), window(&DAYS, "12:00", "24:00")];
        let schedule = schedule("America/New_York", &windows);
        assert_eq!(schedule.closes(at("2026-11-27T16:30:00Z"), 30 * 86_400), None, "it never closes");
    }

    #[test]
    fn an_hour_that_the_clock_skips_or_shows_twice() {
        let night = schedule("Europe/Berlin", &[window(&[Day::Sun], "01:00", "02:30")]);
        // 2026-03-29: at two it is three.
        assert_eq!(night.closes(at("2026-03-29T00:30:00Z"), HORIZON), Some(at("2026-03-29T01:00:00Z")));
        // 2026-10-25: at three it is two again.
        assert_eq!(night.closes(at("2026-10-24T23:30:00Z"), HORIZON), Some(at("2026-10-25T00:30:00Z")));
        assert!(!night.is_open(at("2026-10-25T00:45:00Z")), "half past two is over");
        assert!(night.is_open(at("2026-10-25T01:15:00Z")), "a quarter past two once more");
        assert_eq!(night.closes(at("2026-10-25T01:15:00Z"), HORIZON), Some(at("2026-10-25T01:30:00Z")));
        let skipped = schedule("Europe/Berlin", &[window(&[Day::Sun], "02:10", "02:50")]);
        assert!((0..120).all(|minute| !skipped.is_open(at("2026-03-29T00:00:00Z") + 60 * minute)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let bad =
            |zone: &str, windows: &[Window]| Schedule::new(zone, windows.to_vec()).unwrap_err().to_string();
        assert_eq!(bad("Europe/Atlantis", &[]), "there is no time zone `Europe/Atlantis`");
        assert_eq!(bad("UTC", &[]), "there must be 1 to 64 windows");
        assert_eq!(bad("UTC", &[window(&[], "01:00", "02:00")]), "a window needs a day");
        assert_eq!(
            bad("UTC", &[window(&DAYS, "02:00", "02:00")]),
            "the window from 02:00 to 02:00 is empty (for a whole day write 00:00 to 24:00)"
        );
        for text in ["", "8:00", "08:0", "24:01", "12:60", "+1:00", "08:00:00", "٠٨:٠٠"] {
            assert!(text.parse::<ClockTime>().is_err(), "{text}");
        }
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        let text =
            r#"{"time_zone":"Europe/Berlin","windows":[{"days":["mon","sun"],"from":"22:00","to":"24:00"}]}"#;
        let schedule: Schedule = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&schedule).unwrap(), text);
        assert!(serde_json::from_str::<Schedule>(&text.replace("windows", "window")).is_err());
    }

    fn any_window() -> impl Strategy<Value = Window> {
        let days = proptest::sample::subsequence(DAYS.to_vec(), 1..=7);
        // Quarters of an hour, so that ends meet each other and changes of the clock.
        (days, 0..96_u16, 0..=96_u16).prop_filter_map("empty", |(days, from, to)| {
            let window = Window { days, from: ClockTime(from * 15), to: ClockTime(to * 15) };
            window.check().is_ok().then_some(window)
        })
    }

    /// Zones that change by an hour, by half an hour, on both halves of the Earth, never; and one that left out a day.
    fn any_moment() -> impl Strategy<Value = (&'static str, u64)> {
        let near = |zone: &'static str, change: &str| {
            let change = at(change);
            (change - 100_000..change + 100_000).prop_map(move |now| (zone, now / 60 * 60))
        };
        prop_oneof![
            near("Europe/Berlin", "2026-03-29T01:00:00Z"),
            near("Europe/Berlin", "2026-10-25T01:00:00Z"),
            near("America/New_York", "2026-03-08T07:00:00Z"),
            near("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
            near("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
            near("Pacific/Apia", "2011-12-30T10:00:00Z"),
            near("Asia/Kathmandu", "2026-06-01T00:00:00Z"),
        ]
    }

    proptest! {
        #[test]
        fn it_closes_at_the_first_minute_at_which_it_is_not_open(
            windows in prop::collection::vec(any_window(), 1..4), (zone, now) in any_moment(),
        ) {
            let schedule = schedule(zone, &windows);
            prop_assume!(schedule.is_open(now));
            let minutes = (1..=HORIZON / 60).map(|minute| now + 60 * minute);
            let closing = minutes.into_iter().find(|moment| !schedule.is_open(*moment));
            prop_assert_eq!(schedule.closes(now, HORIZON), closing);
        }

        #[test]
        fn it_turns_at_the_first_minute_at_which_it_is_otherwise(
            windows in prop::collection::vec(any_window(), 1..4), (zone, now) in any_moment(),
        ) {
            let schedule = schedule(zone, &windows);
            let is_open = schedule.is_open(now);
            let minutes = (1..=HORIZON / 60).map(|minute| now + 60 * minute);
            let turn = minutes.into_iter().find(|moment| schedule.is_open(*moment) != is_open);
            prop_assert_eq!(schedule.turns(now, HORIZON), turn);
            prop_assert_eq!(schedule.closes(now, HORIZON), turn.filter(|_| is_open));
        }
    }
}
