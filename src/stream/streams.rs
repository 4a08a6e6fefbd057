//! All films: each is opened once, by whoever asks first, for all who ask.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio::time::{interval, timeout};

use super::cache::Segments;
use super::error::StreamError;
use super::fetch;
use super::film::{Facts, Film};
use super::house::{CEILING, House};
use super::options::StreamOptions;
use super::probes::Probes;
use super::shelf::Bounds;
use super::source::{FileName, FilmFile, Source, shelf_mark};
use super::state::{FilmReport, Situation};
use super::turns::Turns;
use crate::ffmpeg::Launcher;
use crate::media::{self, Index, MediaError, ReadAt};

/// Films that are known at a time; the index of a long one takes a few hundred KiB. Another one's is on disk.
const FILMS: u64 = 64;

/// How often whoever opens a film looks whether data still arrives.
const LOOK: Duration = Duration::from_secs(1);

/// Killed processes are gone in milliseconds, once their reads of the mount are answered.
const REAP: Duration = Duration::from_secs(10);

/// All films of a source.
pub struct Streams<S: Source> {
    house: Arc<House<S>>,
    probes: Arc<Probes>,
    films: Cache<FileName, Arc<Slot<S>>>,
    turns: Arc<Turns>,
}

/// A film that somebody has asked for.
struct Slot<S: Source> {
    /// The film, or why it is none for ever.
    film: OnceCell<Result<Arc<Film<S>>, StreamError>>,
    /// Since when somebody waits for its index, and how many do.
    waiting: Mutex<(usize, Instant)>,
}

impl<S: Source> Streams<S> {
    /// Takes up what the cache directory holds; starts no FFmpeg.
    ///
    /// # Errors
    /// The cache directory cannot be made or listed.
    pub fn new(options: StreamOptions, source: S, launcher: Launcher) -> io::Result<Arc<Self>> {
        let bounds = Bounds {
            bytes: options.disk_limit,
            age: Some(options.disk_age),
        };
        let segments = Segments::open(&options.cache_dir.join("segments"), options.memory_limit, bounds)?;
        let probes = Probes::open(&options.cache_dir.join("indexes"), options.index_limit)?;
        Ok(Arc::new(Streams {
            house: Arc::new(House::new(options, source, launcher, segments)),
            probes: Arc::new(probes),
            films: Cache::builder()
                .max_capacity(FILMS)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            turns: Arc::new(Turns::new()),
        }))
    }

    /// A film. Its index is read once for ever, which waits for its bytes as long as data still arrives; then it is
    /// there at once, also after a restart. Dropping it withdraws the reads, unless somebody else waits for the same
    /// film.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub async fn film(self: &Arc<Self>, file: &FileName) -> Result<Arc<Film<S>>, StreamError> {
        if self.house.stopping.is_cancelled() {
            return Err(StreamError::Stopping);
        }
        if let Some(slot) = self.films.get(file)
            && let Some(film) = slot.film.get()
        {
            // Its torrent may have been removed since.
            self.house.source.path(file)?;
            return film.clone();
        }
        // Before anything is kept of a name that may mean nothing.
        let content = self.house.source.open(file)?;
        let slot = self.films.get_with_by_ref(file, || Arc::new(Slot::new()));
        let _waits = slot.wait();
        let opened = slot.film.get_or_try_init(|| self.open(file, content));
        tokio::select! {
            opened = opened => opened?.clone(),
            silent = self.silent(file) => Err(silent),
            () = self.house.stopping.cancelled() => Err(StreamError::Stopping),
        }
    }

    /// What is to be told of a film now, if somebody has asked for it since the start and it is one. Never waits.
    pub fn report(&self, file: &FileName) -> Option<FilmReport> {
        let slot = self.films.get(file)?;
        if let Some(film) = slot.film.get() {
            return film.as_ref().ok().map(|film| film.report());
        }
        let (waiting, since) = *slot.waiting.lock();
        let silent = self.house.source.last_progress(file).map(|last| last.elapsed());
        let situation = Situation::Header {
            waited: since.elapsed(),
            silent,
        };
        let (state, words) = situation.told();
        (waiting > 0).then(|| FilmReport {
            state,
            words,
            duration_s: None,
            here: Vec::new(),
            tracks: Vec::new(),
            left_out: Vec::new(),
            runs: 0,
            waiting,
        })
    }

    /// Gives up the segments of torrents that are there no longer, and what is too old: to be done at the start, when a
    /// torrent has been removed, and now and then. Waits for the disk.
    pub async fn tidy(&self) {
        let torrents = self.house.source.torrents();
        for (file, _) in &self.films {
            if !torrents.contains(&file.info_hash) {
                self.films.invalidate(&*file);
            }
        }
        let marks = torrents.iter().map(|info_hash| hex::encode(shelf_mark(info_hash)));
        let marks: HashSet<String> = marks.collect();
        let segments = self.house.segments.clone();
        // It fails only when the runtime ends.
        let _ = spawn_blocking(move || segments.keep_only(&marks)).await;
    }

    /// Refuses every request from now on and kills all FFmpegs; ready when they are reaped. The mount has to answer
    /// their reads meanwhile, with errors.
    pub async fn stop(&self) {
        self.house.stop_all();
        self.house.tasks.close();
        if timeout(REAP, self.house.tasks.wait()).await.is_err() {
            tracing::warn!("an FFmpeg that was killed is still there");
        }
    }

    async fn open(
        &self,
        file: &FileName,
        content: S::Content,
    ) -> Result<Result<Arc<Film<S>>, StreamError>, StreamError> {
        let content = self.turns.begin(content);
        let content = content.ok_or(StreamError::Busy { retry_after_s: 5 })?;
        let size = content.size();
        let unread = |error: io::Error| StreamError::Unavailable(error.to_string());
        let (probes, name) = (self.probes.clone(), file.clone());
        let known = move || Some(Facts::of(&name, size, &probes.get(&name, size)?));
        let facts = match content.work(known).await.map_err(unread)? {
            Some(facts) => facts,
            None => match index(&content).await {
                Ok(index) => {
                    let (probes, name) = (self.probes.clone(), file.clone());
                    let keep = move || {
                        let facts = Facts::of(&name, size, &index);
                        probes.put(&name, size, index);
                        facts
                    };
                    content.work(keep).await.map_err(unread)?
                }
                Err(MediaError::Read(error)) => return Err(unread(error)),
                Err(error) => return Ok(Err(StreamError::NotPlayable(error.to_string()))),
            },
        };
        let facts = match facts {
            Ok(facts) => Arc::new(facts),
            Err(error) => return Ok(Err(StreamError::NotPlayable(error.to_string()))),
        };
        let house = self.house.clone();
        house
            .tasks
            .spawn(fetch::first_run(house.clone(), facts.clone(), content.over()));
        Ok(Ok(Arc::new(Film { house, facts })))
    }

    /// Ready when nothing has come of a file for as long as reads may wait, or it has come too slowly.
    async fn silent(&self, file: &FileName) -> StreamError {
        let (since, deadline) = (Instant::now(), self.house.options.read_deadline);
        let mut look = interval(LOOK);
        loop {
            look.tick().await;
            let last = self
                .house
                .source
                .last_progress(file)
                .map_or(since, |last| last.max(since));
            if last.elapsed() >= deadline || since.elapsed() >= CEILING {
                return self.house.unavailable(file);
            }
        }
    }
}

impl<S: Source> Slot<S> {
    fn new() -> Slot<S> {
        Slot {
            film: OnceCell::new(),
            waiting: Mutex::new((0, Instant::now())),
        }
    }

    /// Counts as waiting until what is returned is dropped.
    fn wait(self: &Arc<Self>) -> Waits<S> {
        let mut waiting = self.waiting.lock();
        if waiting.0 == 0 {
            waiting.1 = Instant::now();
        }
        waiting.0 += 1;
        Waits(self.clone())
    }
}

/// The index of a file, wherever in it that is: head and tail are asked for at once.
async fn index<C: FilmFile>(content: &C) -> Result<Index, MediaError> {
    tokio::select! {
        biased;
        index = media::index(content) => index,
        never = fetch::ends(content) => match never {},
    }
}

struct Waits<S: Source>(Arc<Slot<S>>);

impl<S: Source> Drop for Waits<S> {
    fn drop(&mut self) {
        self.0.waiting.lock().0 -= 1;
    }
}

impl<S: Source> Drop for Streams<S> {
    /// Kills what [`Streams::stop`] has not; nobody waits for it.
    fn drop(&mut self) {
        self.house.stop_all();
    }
}

impl<S: Source> fmt::Debug for Streams<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Streams")
            .field("house", &self.house)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
