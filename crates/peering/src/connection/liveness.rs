//! Is the peer still there?
//!
//! While there is traffic, a timer looks at the shared activity of the sessions. If data was sent
//! and nothing came back for a while, probes go out over every path: ICE checks of our own,
//! which only the peer can answer, each on the very pair it came by. A probe answered on the
//! path in use settles the doubt; one answered elsewhere moves the connection there. The peer
//! is declared dead when all rounds failed, never by silence alone, and never by a hint.
//!
//! Without application traffic the connection is idle. The agent's checks rest then; the client
//! alone asks every 25 s, on the path in use and on one more, which keeps the mappings of all
//! NATs open. A gateway that hears nothing for long becomes doubtful.
//!
//! The later rounds go over every pair, at both ends: a way through another relay opens only if each end
//! has asked that relay to let the other in.
//!
//! A client gives up after ten rounds, as it can ask for another gateway. A gateway has nothing
//! to gain from haste, and its client may be roaming; it goes on for 20 s. So does either
//! end after its own addresses changed, and while the relays, which are asked too, say nothing either: then it
//! is our own network that fails, perhaps one that lets no UDP out any more, and another gateway would not help.
//!
//! # How many probes
//!
//! Traffic in one direction makes a doubt after each silence: thousands in an hour. At five
//! percent loss one probe in ten is lost on its way there or back, so five of them fail together
//! every few hours, and ten of them once in ten billion doubts. They need not wait for each other's
//! answers: ten at a quarter of the round trip apart take less time than five at a whole one.

use std::time::{Duration, Instant};

use super::{Connection, Context};
use crate::CloseReason;
use crate::Role;
use crate::address::Pair;
use crate::transactions::Asker;

/// Silence shorter than this starts no probes.
const MIN_SILENCE: Duration = Duration::from_millis(350);
/// Round trips of silence that start probes.
const SILENT_ROUND_TRIPS: u32 = 4;
/// Rounds of probes.
const ROUNDS: u32 = 10;
/// Rounds are at least this far apart, and at least a quarter of a round trip.
const MIN_ROUND: Duration = Duration::from_millis(40);
/// The last probe's answer may take this long, or one and a half round trips if that is more.
const LAST_ANSWER: Duration = Duration::from_millis(60);
/// After so many rounds without an answer every pair is tried.
const ROUNDS_TO_WIDEN: u32 = 3;
/// So many rounds must have begun before an answer on another path counts more than silence on this one.
const ROUNDS_TO_LEAVE: u32 = 4;
/// After the first rounds, a patient end probes this often.
const SLOW_ROUND: Duration = Duration::from_secs(1);
/// A patient end gives up after this.
const PATIENCE: Duration = Duration::from_secs(20);
/// Without application traffic for so long, the connection is idle.
const IDLE_AFTER: Duration = Duration::from_secs(20);
/// Traffic that lasts so long wakes the agent of an idle connection.
const LASTING: Duration = Duration::from_secs(2);
/// How often the client checks an idle connection.
const IDLE_CHECK: Duration = Duration::from_secs(25);
/// A gateway that hears nothing of an idle client for so long doubts.
const IDLE_SILENCE: Duration = Duration::from_secs(60);
/// Probes per round.
const MAX_TARGETS: usize = 32;
/// A peer that sends from another path makes us probe at most this often.
const GENTLE_PAUSE: Duration = Duration::from_secs(1);

/// What the timer is doing.
#[derive(Debug)]
enum Watch {
    /// No traffic: rare checks. `asked` since this moment, if a check is to be answered.
    Idle { next: Instant, asked: Option<Instant> },
    /// Traffic `since` this moment: look again at this time.
    Looking { next: Instant, since: Instant },
    /// Probes are out.
    Probing(Probing),
}

/// Where probes go and when they have failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Is the peer there? Known paths only.
    Doubt,
    /// Where is the peer? Every pair.
    Search,
}

/// Over which pairs a round of probes goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// The path in use.
    Path,
    /// Every path that worked.
    Known,
    /// Every pair.
    All,
}

#[derive(Debug)]
struct Probing {
    purpose: Purpose,
    since: Instant,
    rounds: u32,
    next: Instant,
    answered: Vec<Pair>,
}

/// The watch over one peer.
#[derive(Debug)]
pub(super) struct Liveness {
    watch: Watch,
    /// When a doubt was last settled.
    vouched: Instant,
    /// Bytes sent and received at the last look.
    volume: (u64, u64),
    /// When the volume last grew.
    busy: Instant,
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            watch: Watch::Idle { next: now + IDLE_CHECK, asked: None },
            vouched: now,
            volume: (0, 0),
            busy: now,
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        match &self.watch {
            Watch::Idle { next, .. } | Watch::Looking { next, .. } => *next,
            Watch::Probing(probing) => probing.next,
        }
    }

    /// Whether probes are out.
    pub(super) fn is_in_doubt(&self) -> bool {
        matches!(self.watch, Watch::Probing(_))
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.watch, Watch::Idle { .. })
    }
}

impl Connection {
    /// There is traffic: watch it.
    pub(crate) fn note_activity(&mut self, context: &mut Context<'_>) {
        let silence = self.tolerated_silence();
        let Some(connected) = self.connected() else { return };
        if !connected.liveness.is_idle() {
            return;
        }
        connected.liveness.busy = context.now;
        connected.liveness.watch = Watch::Looking { next: context.now + silence, since: context.now };
        self.wake_mtu(context.now);
    }

    fn tolerated_silence(&self) -> Duration {
        MIN_SILENCE.max(self.round_trip() * SILENT_ROUND_TRIPS)
    }

    /// The timer of the watch.
    pub(super) fn check_liveness(&mut self, context: &mut Context<'_>) {
        match self.connected().map(|connected| &connected.liveness.watch) {
            Some(Watch::Looking { since, .. }) => {
                let since = *since;
                self.look(context, since);
            }
            Some(Watch::Probing(_)) => self.probe_again(context),
            Some(Watch::Idle { .. }) => self.check_idle(context),
            None => {}
        }
    }

    /// The rare check of an idle connection.
    fn check_idle(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        let heard = self.paths.last_heard();
        let Some(connected) = self.connected() else { return };
        let Watch::Idle { asked, .. } = connected.liveness.watch else { return };
        let without_network = context.locals.as_slice().is_empty();
        let unheard = match context.role {
            Role::Client => asked.is_some_and(|asked| heard < Some(asked)),
            Role::Gateway => heard.is_none_or(|heard| now >= heard + IDLE_SILENCE),
        };
        if unheard && !without_network {
            self.begin_probing(context, Purpose::Doubt);
            return;
        }
        let next = match (context.role, heard) {
            (Role::Gateway, Some(heard)) if !without_network => heard + IDLE_SILENCE,
            _ => now + IDLE_CHECK,
        };
        let asked = (context.role == Role::Client && !without_network).then_some(now);
        connected.liveness.watch = Watch::Idle { next, asked };
        if asked.is_some() {
            self.paths.forget_old(now, self.selected);
            let standby = self.paths.validated().find(|pair| Some(*pair) != self.selected);
            for pair in self.selected.into_iter().chain(standby) {
                self.send_probe(context, pair);
            }
        }
    }

    fn look(&mut self, context: &mut Context<'_>, since: Instant) {
        let now = context.now;
        let silence = self.tolerated_silence();
        let Some(activity) = context.device.activity(self.peer) else { return };
        let (unanswered, volume) = (activity.unanswered_send(), (activity.sent().1, activity.received().1));
        let Some(connected) = self.connected() else { return };
        let liveness = &mut connected.liveness;
        if std::mem::replace(&mut liveness.volume, volume) != volume {
            liveness.busy = now;
        }
        let unanswered = unanswered.map(|since| since + silence);
        if unanswered.is_some_and(|at| at <= now) {
            self.begin_probing(context, Purpose::Doubt);
            return;
        }
        if now.saturating_duration_since(liveness.busy) < IDLE_AFTER {
            let next = unanswered.filter(|at| *at > now).unwrap_or(now + silence);
            let lasting = liveness.busy.saturating_duration_since(since) >= LASTING;
            liveness.watch = Watch::Looking { next, since };
            if lasting {
                self.ice.resume(now);
            }
            return;
        }
        liveness.watch = Watch::Idle { next: now + IDLE_CHECK, asked: None };
        self.ice.rest();
    }

    /// Something made us doubt that the peer or the path is alive.
    ///
    /// Probes that are under way answer that too, unless one was answered before the doubt arose.
    pub(crate) fn doubt(&mut self, context: &mut Context<'_>) {
        let is_being_answered = match self.connected().map(|connected| &connected.liveness.watch) {
            None => return,
            Some(Watch::Probing(probing)) => probing.purpose == Purpose::Doubt && probing.answered.is_empty(),
            Some(Watch::Idle { .. } | Watch::Looking { .. }) => false,
        };
        if !is_being_answered && !context.locals.as_slice().is_empty() {
            self.begin_probing(context, Purpose::Doubt);
        }
    }

    /// Like [`doubt`](Self::doubt), but rounds that are under way begin again: what was sent before
    /// may have gone nowhere.
    pub(super) fn doubt_anew(&mut self, context: &mut Context<'_>) {
        let purpose = match self.connected().map(|connected| &connected.liveness.watch) {
            None => return,
            Some(Watch::Probing(probing)) => probing.purpose,
            Some(Watch::Idle { .. } | Watch::Looking { .. }) => Purpose::Doubt,
        };
        if !context.locals.as_slice().is_empty() {
            self.begin_probing(context, purpose);
        }
    }

    /// Like [`doubt`](Self::doubt), unless there is one already or the last was settled a moment ago: whoever
    /// can cause this often must not keep the rounds from coming to their end.
    pub(crate) fn doubt_gently(&mut self, context: &mut Context<'_>) {
        let recent = self.connected().is_some_and(|connected| {
            let liveness = &connected.liveness;
            let since_vouched = context.now.saturating_duration_since(liveness.vouched);
            since_vouched < GENTLE_PAUSE || matches!(liveness.watch, Watch::Probing(_))
        });
        if !recent {
            self.doubt(context);
        }
    }

    /// Our end of the path is gone: look for another path, patiently.
    pub(super) fn search(&mut self, context: &mut Context<'_>) {
        // Without any address there is nothing to probe with; new ones start the search.
        if !context.locals.as_slice().is_empty() {
            self.begin_probing(context, Purpose::Search);
        }
    }

    fn begin_probing(&mut self, context: &mut Context<'_>, purpose: Purpose) {
        let now = context.now;
        let Some(connected) = self.connected() else { return };
        let answered = Vec::new();
        connected.liveness.watch =
            Watch::Probing(Probing { purpose, since: now, rounds: 0, next: now, answered });
        context.counters.probings += 1;
        tracing::debug!(connection = self.id.0, ?purpose, path = ?self.selected, "probing");
        self.ice.resume(now);
        self.probe_again(context);
    }

    /// Another round, or the end of them.
    fn probe_again(&mut self, context: &mut Context<'_>) {
        if self.is_heard(context) {
            self.end_probing(context);
            return;
        }
        // Without a network of our own, silence says nothing about the peer.
        if context.locals.as_slice().is_empty() {
            self.end_probing(context);
            return;
        }
        let (round, last_answer) = (self.round(), self.last_answer());
        let settled_in = self.round_trip() * 2;
        let now = context.now;
        let role = context.role;
        let Some(connected) = self.connected() else { return };
        let Watch::Probing(probing) = &mut connected.liveness.watch else { return };
        let purpose = probing.purpose;
        let others = !probing.answered.is_empty()
            && probing.rounds >= ROUNDS_TO_LEAVE
            && now >= probing.since + settled_in;
        let reach = match probing.rounds {
            0 => Reach::Path,
            rounds if rounds < ROUNDS_TO_WIDEN || rounds >= ROUNDS && role == Role::Gateway => Reach::Known,
            _ => Reach::All,
        };
        if probing.rounds == ROUNDS_TO_WIDEN {
            context.relays.ask(now);
        }
        let is_network_silent = probing.rounds > ROUNDS_TO_WIDEN && context.relays.are_silent();
        let patient = purpose == Purpose::Search || role == Role::Gateway || is_network_silent;
        let patience = if patient { PATIENCE } else { Duration::ZERO };
        let over = probing.rounds >= ROUNDS && now >= probing.since + patience;
        probing.rounds += 1;
        let pause = match probing.rounds {
            rounds if rounds < ROUNDS => round,
            // The relays' answers may be on their way, and they decide.
            _ if is_network_silent && now < probing.since + SLOW_ROUND => last_answer,
            _ if patient => round.max(SLOW_ROUND),
            _ => last_answer,
        };
        probing.next = now + pause;
        if others {
            self.leave_path(context);
        } else if over {
            // A relay that forgot us looks just like a dead peer.
            if let Some(pair) = self.selected {
                context.relays.doubt(now, pair.local);
            }
            self.closing = Some(CloseReason::Liveness);
        } else {
            let reach = if purpose == Purpose::Search { Reach::All } else { reach };
            self.send_probes(context, reach);
        }
    }

    fn round(&self) -> Duration {
        MIN_ROUND.max(self.round_trip() / 4)
    }

    fn last_answer(&self) -> Duration {
        LAST_ANSWER.max(self.round_trip() * 3 / 2)
    }

    pub(super) fn round_trip(&self) -> Duration {
        self.selected.and_then(|pair| self.paths.rtt(pair)).unwrap_or_default()
    }

    /// Whether the peer said anything since the probes began.
    fn is_heard(&mut self, context: &Context<'_>) -> bool {
        let received = context.device.activity(self.peer).and_then(adit_wireguard::Activity::last_received);
        let selected = self.selected;
        // What comes another way says that the peer lives, and nothing of the path in use. Its gateway may have left it.
        let is_elsewhere =
            context.role == Role::Client && self.heard_on.is_some_and(|pair| Some(pair) != selected);
        let Some(connected) = self.connected() else { return false };
        let Watch::Probing(probing) = &connected.liveness.watch else { return false };
        let answered = selected.is_some_and(|pair| probing.answered.contains(&pair));
        let is_received = received > Some(probing.since) && !is_elsewhere;
        answered || (probing.purpose == Purpose::Doubt && is_received)
    }

    /// A first doubt concerns the path in use only; most doubts are settled there. Then come the paths that
    /// worked before, and at last whatever may work: a lost relay must not look like a lost peer.
    fn send_probes(&mut self, context: &mut Context<'_>, reach: Reach) {
        let mut targets: Vec<Pair> = self.selected.into_iter().collect();
        if reach != Reach::Path {
            targets.extend(self.paths.validated());
        }
        if reach == Reach::All {
            // Channels that seemed to be of no use may be of use now.
            self.unsettle(context);
            self.sync_channels(context);
            targets.extend(self.ice.pairs());
        }
        let mut sent = Vec::new();
        for pair in targets {
            if sent.len() < MAX_TARGETS && !sent.contains(&pair) {
                sent.push(pair);
                self.send_probe(context, pair);
            }
        }
    }

    fn send_probe(&mut self, context: &mut Context<'_>, pair: Pair) {
        let Some((id, datagram)) = self.ice.probe() else { return };
        let transaction = self.transaction(context.now, pair, Asker::Probe);
        context.transactions.insert(id, transaction);
        context.send(pair, datagram);
    }

    /// A check or probe was answered; it may be the answer that the rounds wait for.
    pub(super) fn note_probe_answer(&mut self, context: &mut Context<'_>, pair: Pair) {
        let selected = self.selected;
        let proven = selected.is_some_and(|pair| self.paths.is_validated(pair));
        let Some(connected) = self.connected() else { return };
        let Watch::Probing(probing) = &mut connected.liveness.watch else { return };
        if !probing.answered.contains(&pair) {
            probing.answered.push(pair);
        }
        if selected == Some(pair) {
            self.end_probing(context);
        } else if !proven {
            // The path in use is a guess, and here is one that works.
            self.move_on(context);
        }
    }

    /// Another path answered and the one in use did not, nor did any that was asked as often. Whatever those
    /// have in common with it, they may share its end.
    fn leave_path(&mut self, context: &mut Context<'_>) {
        let answered = match self.connected().map(|connected| &mut connected.liveness.watch) {
            Some(Watch::Probing(probing)) => std::mem::take(&mut probing.answered),
            _ => Vec::new(),
        };
        let known: Vec<Pair> = self.paths.validated().chain(self.selected).collect();
        for silent in known.into_iter().filter(|pair| !answered.contains(pair)) {
            self.paths.mark_suspect(silent);
        }
        self.move_on(context);
    }

    /// Takes a better path than the one in use, which is in doubt.
    fn move_on(&mut self, context: &mut Context<'_>) {
        if let Some(pair) = self.selected {
            self.paths.mark_suspect(pair);
            context.relays.doubt(context.now, pair.local);
        }
        self.reselect(context);
        tracing::debug!(connection = self.id.0, path = ?self.selected, "left a path that does not answer");
        self.end_probing(context);
    }

    /// The peer is alive.
    fn end_probing(&mut self, context: &mut Context<'_>) {
        let next = context.now + self.tolerated_silence();
        let Some(connected) = self.connected() else { return };
        connected.liveness.vouched = context.now;
        let search =
            matches!(&connected.liveness.watch, Watch::Probing(Probing { purpose: Purpose::Search, .. }));
        connected.liveness.watch = Watch::Looking { next, since: context.now };
        if search {
            self.send_candidates(context);
        }
    }
}
