//! The load: as many requests as possible, or a fixed rate.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;

use crate::clients::{Client, Op, Stores};

/// The highest rate: each client sends one request after another. Returns requests a second.
pub(crate) async fn greatest(
    clients: &mut Vec<Client>,
    op: Op,
    stores: Stores,
    rows: i64,
    took: Duration,
) -> Result<f64> {
    let end = Instant::now() + took;
    let tasks = clients.drain(..).map(|mut client| {
        tokio::spawn(async move {
            let mut done = 0u64;
            while Instant::now() < end {
                client.run(op, stores, any(rows)).await?;
                done += 1;
            }
            anyhow::Ok((client, done))
        })
    });
    let mut total = 0;
    for task in tasks.collect::<Vec<_>>() {
        let (client, done) = task.await??;
        clients.push(client);
        total += done;
    }
    Ok(total as f64 / took.as_secs_f64())
}

fn any(rows: i64) -> i64 {
    1 + i64::from(rand::random::<u32>()) % rows
}

/// Sends requests at a fixed rate. Returns the time of each in microseconds, from the moment when it was due.
/// So a pause of the machine counts for all requests that were due during it, on both sides. A kernel timer
/// wakes the sending thread. This costs little CPU, which both sides need.
pub(crate) async fn paced(
    clients: &mut Vec<Client>,
    op: Op,
    stores: Stores,
    rows: i64,
    rate: f64,
    took: Duration,
) -> Result<Vec<u64>> {
    let load = Rc::new(Load {
        idle: RefCell::new(clients.drain(..).collect()),
        waiting: RefCell::default(),
        times: RefCell::default(),
    });
    let mut under_way = JoinSet::new();
    let interval = Duration::from_secs_f64(1.0 / rate);
    let mut due = Instant::now();
    let (ticks, end) = (Ticks::every(interval)?, due + took);
    while due < end {
        for _ in 0..ticks.next().await? {
            due += interval;
            let client = load.idle.borrow_mut().pop_front();
            match client {
                Some(client) => {
                    let load = Rc::clone(&load);
                    under_way.spawn_local(async move { load.work(client, due, op, stores, rows).await });
                }
                None => load.waiting.borrow_mut().push_back(due),
            }
        }
        while let Some(done) = under_way.try_join_next() {
            done??;
        }
    }
    while let Some(done) = under_way.join_next().await {
        done??;
    }
    clients.extend(load.idle.take());
    Ok(load.times.take())
}

/// The schedule of requests and the free clients.
struct Load {
    idle: RefCell<VecDeque<Client>>,
    waiting: RefCell<VecDeque<Instant>>,
    times: RefCell<Vec<u64>>,
}

impl Load {
    /// Sends one request, and then requests that waited for a free client.
    async fn work(
        &self,
        mut client: Client,
        mut due: Instant,
        op: Op,
        stores: Stores,
        rows: i64,
    ) -> Result<()> {
        loop {
            client.run(op, stores, any(rows)).await?;
            self.times.borrow_mut().push(due.elapsed().as_micros() as u64);
            let next = self.waiting.borrow_mut().pop_front();
            let Some(next) = next else { break };
            due = next;
        }
        self.idle.borrow_mut().push_back(client);
        Ok(())
    }
}

/// A timer of the kernel. The runtime's timers are too coarse.
struct Ticks(AsyncFd<OwnedFd>);

impl Ticks {
    fn every(time: Duration) -> Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
        timer.set(Expiration::Interval(time.into()), TimerSetTimeFlags::empty())?;
        // `AsyncFd::register` requires that the descriptor stays the same. An `OwnedFd` guarantees it.
        #[expect(deprecated, reason = "`register` is unsafe, which this workspace does without")]
        Ok(Self(AsyncFd::new(timer.into())?))
    }

    /// Waits, and returns how many times the timer expired since the last call.
    async fn next(&self) -> Result<u64> {
        loop {
            let mut times = [0; 8];
            let mut ready = self.0.readable().await?;
            if let Ok(read) = ready.try_io(|timer| Ok(nix::unistd::read(timer, &mut times)?)) {
                read?;
                return Ok(u64::from_ne_bytes(times));
            }
        }
    }
}

/// The work of the machine's cores so far, in clock ticks.
pub(crate) struct Busy {
    busy: f64,
    all: f64,
}

impl Busy {
    /// Reads the first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq. The further
    /// fields are time that the machine's host took.
    pub(crate) fn now() -> Result<Self> {
        let stat = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<f64> = line.split_whitespace().skip(1).take(7).flat_map(str::parse).collect();
        ensure!(ticks.len() == 7, "/proc/stat: {line}");
        let all: f64 = ticks.iter().sum();
        Ok(Self { busy: all - ticks[3] - ticks[4], all })
    }

    /// The share of the cores that was busy since then.
    pub(crate) fn since(&self) -> Result<f64> {
        let now = Self::now()?;
        Ok((now.busy - self.busy) / (now.all - self.all).max(1.0))
    }
}
