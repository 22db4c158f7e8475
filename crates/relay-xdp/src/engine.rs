//! The attached program and its tables.
//!
//! Any thread of the relay may call; a lock orders the calls. It is taken when channels come and go, never for a
//! packet.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray};
use aya::programs::links::FdLink;
use aya::programs::{ProgramError, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, TestRun as _};
use nix::errno::Errno;
use nix::time::{ClockId, clock_getres};

use crate::entries::{self, Entries};
use crate::layout::{self, Key, Value};
use crate::watch::Watch;
use crate::{
    Config, Counters, InsertError, MAX_INTERFACES, Mode, Route, XdpError, counters, interface, loopback,
};

/// How lines of the verifier's log begin that come behind the reason of a refusal.
const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("ADIT_XDP_PROGRAM"));

/// The attached program; detached when the last clone is dropped, and by the kernel when the process ends.
#[derive(Clone, Debug)]
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    kernel: Mutex<Kernel>,
}

/// What the kernel holds for us.
struct Kernel {
    program: Ebpf,
    /// Empty once detached.
    links: Vec<FdLink>,
    routes: HashMap<MapData, Key, Value>,
    port_generations: Array<MapData, u32>,
    epoch: Array<MapData, u64>,
    counters: PerCpuArray<MapData, [u8; counters::BYTES]>,
    /// Routes in the table; each has two entries.
    count: u32,
    watch: Watch,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Kernel").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Engine {
    /// Loads the program and attaches it to every interface of `config`.
    ///
    /// # Errors
    /// When the kernel, a driver or the rights of this process do not allow it; nothing stays attached then.
    pub fn attach(config: &Config) -> Result<Self, XdpError> {
        Self::attach_object(config, OBJECT)
    }

    /// As [`Engine::attach`], with another compilation of the same program.
    pub(crate) fn attach_object(config: &Config, object: &[u8]) -> Result<Self, XdpError> {
        let number = config.interfaces.len();
        if number == 0 || number > MAX_INTERFACES {
            return Err(XdpError::Interfaces(number));
        }
        loopback::ensure_forwarding(&config.addresses)?;
        let mut kernel = load(config, object)?;
        kernel.renew_lease();
        kernel.begin_epoch();
        for interface in &config.interfaces {
            let link = attach(&mut kernel.program, interface, config.mode)?;
            kernel.links.push(link);
        }
        kernel.watch = Watch::new(0, config.transmit_drops());
        Ok(Self(Arc::new(Inner { config: config.clone(), kernel: Mutex::new(kernel) })))
    }

    /// Looks whether the kernel would take the program: loads it and lets it go, and attaches nothing.
    ///
    /// # Errors
    /// As [`Engine::attach`], as far as interfaces have no part in it.
    pub fn check(config: &Config) -> Result<(), XdpError> {
        loopback::check_forwarding(&config.addresses)?;
        for interface in &config.interfaces {
            index_of(interface)?;
        }
        load(config, OBJECT).map(drop)
    }

    /// Puts a route into the table. From now on its packets no longer reach the sockets, as a rule.
    ///
    /// # Errors
    /// When there is no room or the route does not suit the program; its packets then go through the sockets.
    pub fn insert(&self, route: &Route) -> Result<(), InsertError> {
        let mut kernel = self.kernel();
        if kernel.links.is_empty() {
            return Err(InsertError::Detached);
        }
        let config = &self.0.config;
        let place = config.addresses.place(route.peer.is_ipv6(), route.port);
        let generation = place.map_or(0, |place| kernel.generation(place));
        let entries = entries::entries(&config.addresses, config.secret, route, generation)?;
        let is_new = kernel.name_of(&entries.to_peer.0).is_none();
        if is_new && kernel.count >= config.capacity {
            return Err(InsertError::Full);
        }
        let inserted = kernel.insert(&entries);
        if !is_new || inserted.is_err() {
            kernel.begin_epoch();
        }
        kernel.count += u32::from(is_new && inserted.is_ok());
        inserted.map_err(|error| match errno(&error) {
            Some(Errno::E2BIG | Errno::ENOMEM) => InsertError::Full,
            _ => InsertError::Kernel(chain(&error)),
        })
    }

    /// Takes a route out of the table, unless another route has its place by now.
    pub fn remove(&self, route: &Route) {
        let mut kernel = self.kernel();
        let [from_peer, from_client] = entries::keys(route);
        // First what the client sends: it decides about the count.
        if kernel.remove(&from_client, route.name) {
            kernel.count = kernel.count.saturating_sub(1);
        }
        kernel.remove(&from_peer, route.name);
        kernel.begin_epoch();
    }

    /// Ends every route of a relayed port, with one write and before any of them is removed.
    pub fn release_port(&self, is_v6: bool, port: u16) {
        let Some(place) = self.0.config.addresses.place(is_v6, port) else { return };
        let mut kernel = self.kernel();
        let next = kernel.generation(place).wrapping_add(1);
        // It cannot fail for a place inside the table.
        let _ = kernel.port_generations.set(place, next, 0);
    }

    /// Lets the program forward for another [`LEASE`](crate::LEASE), and looks whether what it sends leaves the machine.
    ///
    /// To be called about once a second. False if its frames are lost: the program was detached then, once and for
    /// all, and the sockets serve everything.
    pub fn renew_lease(&self) -> bool {
        let mut kernel = self.kernel();
        kernel.renew_lease();
        if kernel.links.is_empty() {
            return false;
        }
        let forwarded = kernel.counters().packets();
        let fails = kernel.watch.look(forwarded, self.0.config.transmit_drops());
        if fails {
            kernel.links.clear();
        }
        !fails
    }

    /// What the program counted since it was attached.
    pub fn counters(&self) -> Counters {
        self.kernel().counters()
    }

    /// Routes in the table.
    pub fn routes(&self) -> u32 {
        self.kernel().count
    }

    /// Calls `act` with one of the object's programs.
    pub(crate) fn with_program<T>(&self, name: &str, act: impl FnOnce(&Xdp) -> T) -> Option<T> {
        let kernel = self.kernel();
        let program: &Xdp = kernel.program.program(name)?.try_into().ok()?;
        Some(act(program))
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        // A panic between two calls to the kernel leaves nothing half done that the next call would mind.
        self.0.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Config {
    /// Frames that the interfaces could not send, all together.
    fn transmit_drops(&self) -> u64 {
        self.interfaces.iter().filter_map(|name| interface::transmit_drops(name)).sum()
    }
}

impl Kernel {
    fn generation(&self, place: u32) -> u32 {
        self.port_generations.get(&place, 0).unwrap_or(0)
    }

    /// Has a program write the lease, since only programs read the clock that programs go by.
    fn renew_lease(&self) {
        let frame = [0; 14];
        let program = self.program.program("renew").map(<&Xdp>::try_from);
        if let Some(Ok(program)) = program {
            // When it fails the lease ends, and the sockets serve everything.
            let _ = program.test_run(TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() });
        }
    }

    /// Makes processors forget what they remember of routes.
    fn begin_epoch(&mut self) {
        let next = self.epoch.get(&0, 0).unwrap_or(0).wrapping_add(1).max(1);
        // It cannot fail for a table of one place.
        let _ = self.epoch.set(0, next, 0);
    }

    /// Both entries or none.
    fn insert(&mut self, entries: &Entries) -> Result<(), MapError> {
        self.routes.insert(entries.to_client.0, entries.to_client.1, 0)?;
        let inserted = self.routes.insert(entries.to_peer.0, entries.to_peer.1, 0);
        if inserted.is_err() {
            let _ = self.routes.remove(&entries.to_client.0);
        }
        inserted
    }

    /// The name of the route that has this entry.
    fn name_of(&self, key: &Key) -> Option<u64> {
        self.routes.get(key, 0).ok().map(|value| layout::name(&value))
    }

    fn remove(&mut self, key: &Key, name: u64) -> bool {
        self.name_of(key) == Some(name) && self.routes.remove(key).is_ok()
    }

    fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        if let Ok(of_processors) = self.counters.get(&0, 0) {
            for bytes in of_processors.iter() {
                sum.add(bytes);
            }
        }
        sum
    }
}

/// Makes the tables and brings the program into the kernel.
fn load(config: &Config, object: &[u8]) -> Result<Kernel, XdpError> {
    let refused = |error: &dyn Error| XdpError::Load(chain(error));
    let settings = layout::settings(&config.addresses.settings(ticks_per_second()));
    let mut program = EbpfLoader::new()
        .btf(None)
        .override_global("settings", &settings, true)
        .map_max_entries("routes", config.capacity.saturating_mul(2).max(2))
        .map_max_entries("port_generations", config.addresses.places())
        .load(object)
        .map_err(|error| refused(&error))?;
    for (_, part) in program.programs_mut() {
        let part: &mut Xdp = part.try_into().map_err(|error: ProgramError| refused(&error))?;
        part.load().map_err(|error| XdpError::Load(without_log(error)))?;
    }
    let mut table = |name: &'static str| {
        let table = program.take_map(name);
        table.ok_or_else(|| XdpError::Load(format!("the program has no table {name}")))
    };
    let refused = |error: MapError| XdpError::Load(chain(&error));
    Ok(Kernel {
        routes: HashMap::try_from(table("routes")?).map_err(refused)?,
        port_generations: Array::try_from(table("port_generations")?).map_err(refused)?,
        epoch: Array::try_from(table("epoch")?).map_err(refused)?,
        counters: PerCpuArray::try_from(table("counters")?).map_err(refused)?,
        program,
        links: Vec::new(),
        count: 0,
        watch: Watch::default(),
    })
}

/// The rate of the kernel's clock, which is its coarse clock's resolution turned over.
fn ticks_per_second() -> u16 {
    let resolution = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |time| time.tv_nsec());
    // Rates are 100, 250, 300 or 1,000. The lowest makes leases and answers last too short rather than too long.
    if resolution > 0 {
        ((1_000_000_000 + resolution / 2) / resolution).clamp(24, 10_000) as u16
    } else {
        100
    }
}

fn index_of(interface: &str) -> Result<u32, XdpError> {
    nix::net::if_::if_nametoindex(interface).map_err(|_| XdpError::NoInterface(interface.to_owned()))
}

/// Attaches the program in such a way that it goes when the process does.
fn attach(program: &mut Ebpf, interface: &str, mode: Mode) -> Result<FdLink, XdpError> {
    let refused = |reason: String| XdpError::Attach { interface: interface.to_owned(), mode, reason };
    let index = index_of(interface)?;
    let how = match mode {
        Mode::Driver => XdpMode::Driver,
        Mode::Generic => XdpMode::Skb,
    };
    let program =
        program.program_mut("relay").ok_or_else(|| XdpError::Load("no program `relay`".to_owned()))?;
    let program: &mut Xdp =
        program.try_into().map_err(|error: ProgramError| XdpError::Load(chain(&error)))?;
    let link = program.attach_to_if_index(index, how).map_err(|error| refused(chain(&error)))?;
    let link = program.take_link(link).map_err(|error| refused(chain(&error)))?;
    // A link of the old kind would stay behind.
    FdLink::try_from(link).map_err(|error| refused(chain(&error)))
}

/// The kernel's error number at the bottom of an error.
fn errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(number) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            return Some(Errno::from_raw(number));
        }
        current = error.source();
    }
    None
}

/// An error with all its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// What the kernel says about a program, without the pages of reasoning before it.
fn without_log(error: ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let is_reason = |line: &&str| !STATISTICS.iter().any(|start| line.starts_with(start));
            let last = log.lines().rfind(is_reason).unwrap_or_default();
            format!("{io_error} {last}").trim_end().to_owned()
        }
        other => chain(&other),
    }
}
