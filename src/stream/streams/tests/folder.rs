//! A folder of films for the tests, and where they are streamed from.

use super::*;

pub(super) const VIDEO: RenditionId = RenditionId::Video;
pub(super) const AUDIO: RenditionId = RenditionId::Audio(0);
pub(super) const SUBTITLES: RenditionId = RenditionId::Subtitles(0);

/// Films of one minute, about 15 segments of 4 s. Made once, beside the program of the tests.
pub(super) fn films() -> &'static Path {
    static FILMS: OnceLock<PathBuf> = OnceLock::new();
    FILMS.get_or_init(|| {
        let program = std::env::current_exe().unwrap();
        let beside = program.parent().unwrap();
        // Another number when other films are wanted.
        let films = beside.join("stream-films-1");
        if !films.exists() {
            let dir = tempfile::tempdir_in(beside).unwrap();
            make_films(dir.path());
            // Another program may have made them meanwhile.
            let _ = std::fs::rename(dir.path(), &films);
        }
        films
    })
}

pub(super) fn make_films(dir: &Path) {
    let cues = (0..30).map(|number| {
        let (from, to) = (number * 2, number * 2 + 3);
        format!(
            "{number}\n00:00:{from:02},000 --> 00:{:02}:{:02},500\ncue {number}\n\n",
            to / 60,
            to % 60
        )
    });
    std::fs::write(dir.join("cues.srt"), cues.collect::<String>()).unwrap();
    std::fs::write(dir.join("notes.txt"), "no film").unwrap();
    for line in [
        "-f lavfi -i testsrc2=s=320x180:r=25:d=60 -f lavfi -i sine=d=60 -f lavfi -i sine=f=200:d=60 -i cues.srt \
         -map 0 -map 1 -map 2 -map 3 -c:v libx264 -preset ultrafast -threads 1 -bf 2 -g 50 -sc_threshold 0 \
         -c:a aac -c:s srt film.mkv",
        "-i film.mkv -map 0:v -map 0:a -c copy film.mp4",
        // The sound of each moment lies 30 s of film behind its pictures.
        "-i film.mp4 -itsoffset 30 -i film.mp4 -map 0:v -map 1:a:0 -c copy late.mp4",
        "-copyts -i late.mp4 -map 0 -c copy -bsf:a setts=ts=TS-30/TB -max_interleave_delta 1 skewed.mp4",
    ] {
        let done = Command::new("ffmpeg")
            .current_dir(dir)
            .args("-v error -nostdin -y -bitexact".split(' '))
            .args(line.split_whitespace())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

/// A folder of films whose reads can be held up, and which remembers what it was told.
pub(super) struct Folder {
    pub(super) root: PathBuf,
    pub(super) held: watch::Sender<bool>,
    pub(super) broken: AtomicBool,
    pub(super) absent: AtomicBool,
    /// Its torrent has been removed; who has the file open reads it still.
    pub(super) gone: AtomicBool,
    /// Every process that was told of, and whether it is urgent now; none once it is forgotten.
    pub(super) paces: Mutex<BTreeMap<u32, Option<bool>>>,
    pub(super) told: watch::Sender<u32>,
    pub(super) progress: Mutex<Option<Instant>>,
    /// What was expected, in the order in which it was.
    pub(super) expected: Mutex<Vec<Range<u64>>>,
}

impl Folder {
    pub(super) fn new() -> Arc<Folder> {
        Arc::new(Folder {
            root: films().to_owned(),
            held: watch::Sender::new(false),
            broken: AtomicBool::new(false),
            absent: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            paces: Mutex::default(),
            told: watch::Sender::new(0),
            progress: Mutex::new(None),
            expected: Mutex::default(),
        })
    }

    /// How often FFmpeg was started.
    pub(super) fn starts(&self) -> usize {
        self.paces.lock().len()
    }

    /// Processes that live now.
    pub(super) fn pids(&self) -> Vec<u32> {
        let paces = self.paces.lock();
        paces
            .iter()
            .filter(|(_, pace)| pace.is_some())
            .map(|(pid, _)| *pid)
            .collect()
    }

    /// Waits until what was told fits.
    pub(super) async fn until(&self, fits: impl Fn(&BTreeMap<u32, Option<bool>>) -> bool) {
        let mut told = self.told.subscribe();
        limit(async {
            while !fits(&self.paces.lock()) {
                told.changed().await.unwrap();
            }
        })
        .await;
    }
}

pub(super) struct Opened {
    pub(super) folder: Arc<Folder>,
    pub(super) file: std::fs::File,
}

impl ReadAt for Opened {
    fn size(&self) -> u64 {
        self.file.metadata().unwrap().len()
    }

    async fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        if self.folder.broken.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody is to read this"));
        }
        let mut held = self.folder.held.subscribe();
        held.wait_for(|held| !held).await.map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

impl FilmFile for Opened {
    async fn expect(&self, bytes: Range<u64>, _: Duration) {
        self.folder.expected.lock().push(bytes);
    }
}

impl Source for Arc<Folder> {
    type Content = Opened;

    fn torrents(&self) -> HashSet<String> {
        let here = !self.gone.load(Ordering::Relaxed);
        here.then(|| name("").info_hash).into_iter().collect()
    }

    fn open(&self, file: &FileName) -> Result<Opened, SourceError> {
        let file = std::fs::File::open(self.path(file)?).map_err(|_| SourceError::Unknown)?;
        Ok(Opened {
            folder: self.clone(),
            file,
        })
    }

    fn path(&self, file: &FileName) -> Result<PathBuf, SourceError> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(SourceError::Unknown);
        }
        Ok(self.root.join(&file.path))
    }

    fn pace(&self, pid: u32, urgent: bool) {
        self.paces.lock().insert(pid, Some(urgent));
        self.told.send_modify(|told| *told += 1);
    }

    fn forget(&self, pid: u32) {
        self.paces.lock().insert(pid, None);
        self.told.send_modify(|told| *told += 1);
    }

    fn here(&self, _: &FileName, ranges: &[Range<u64>]) -> Vec<bool> {
        vec![!self.absent.load(Ordering::Relaxed); ranges.len()]
    }

    fn last_progress(&self, _: &FileName) -> Option<Instant> {
        *self.progress.lock()
    }
}

pub(super) struct Place {
    pub(super) cache: tempfile::TempDir,
    pub(super) folder: Arc<Folder>,
    pub(super) options: StreamOptions,
    pub(super) ffmpeg: PathBuf,
}

impl Place {
    pub(super) fn new() -> Place {
        let cache = tempfile::tempdir().unwrap();
        Place {
            options: StreamOptions::new(cache.path().join("cache")),
            cache,
            folder: Folder::new(),
            ffmpeg: "ffmpeg".into(),
        }
    }

    pub(super) fn open(&self) -> Arc<Streams<Arc<Folder>>> {
        let options = LauncherOptions {
            ffmpeg: self.ffmpeg.clone(),
            ..LauncherOptions::unconfined()
        };
        let launcher = Launcher::start(options).unwrap();
        Streams::new(self.options.clone(), self.folder.clone(), launcher).unwrap()
    }

    /// A program in FFmpeg's place; `real` is FFmpeg with its arguments.
    pub(super) fn script(&mut self, text: &str) {
        let path = self.cache.path().join("script");
        let text = text.replace("real", "/usr/bin/ffmpeg \"$@\"");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        self.ffmpeg = path;
    }
}

pub(super) fn name(path: &str) -> FileName {
    FileName {
        info_hash: "12".repeat(20),
        path: path.to_owned(),
    }
}

/// No test waits longer for anything.
pub(super) async fn limit<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(120), future)
        .await
        .expect("it takes too long")
}

type Parts = BTreeMap<(RenditionId, u32), Bytes>;

pub(super) async fn get(film: &Arc<Film<Arc<Folder>>>, rendition: RenditionId, number: u32) -> Bytes {
    limit(film.segment(&rendition, number)).await.unwrap()
}

/// Every segment of every rendition in order, as a player asks for them.
pub(super) async fn all(film: &Arc<Film<Arc<Folder>>>) -> Parts {
    let mut parts = Parts::new();
    for number in 0..film.facts.timeline.count() {
        for rendition in film.facts.plan.renditions() {
            parts.insert((rendition.id, number), get(film, rendition.id, number).await);
        }
    }
    parts
}

pub(super) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = kill_process(pid, signal);
}
