//! A daemon that may be hurt, on a tree of its own: what it runs, and what it holds of the machine.

use anyhow::{Context, Result, ensure};
use astscope_protocol::Client;
use astscope_protocol::messages::{
    FaultKind, FaultParams, KillParams, OpenParams, Peer, StatusParams, StatusResult, TreeFormat,
    TreeParams, TreeResult, WorkspaceStatus, method,
};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything that has no bound of its own may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The daemon's home directory, in the house's own. Queries there are answered without an index.
const HOME: &str = "home";

/// Threads and files that may be left: those of connections that are just being closed.
const LEFT_OVER_MAX: u64 = 4;

/// How much more memory there may be than before, in KiB, than more files explain: an allocator's own.
const MEMORY_MARGIN_KIB: u64 = 96 << 10;

/// What a file says, with a fault's name behind it, that is to hurt its parser.
pub(crate) const MARKER: &str = "HURT";

/// A node of the supervision tree.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) strategy: Option<String>,
    pub(crate) intensity: Option<usize>,
    pub(crate) period_ms: Option<u64>,
    /// Behind a firewall, which waits so long before it starts the node again.
    pub(crate) degrade_ms: Option<u64>,
    pub(crate) restart: Option<String>,
    pub(crate) state: String,
    pub(crate) incarnation: u64,
    #[serde(default)]
    pub(crate) children: Vec<Node>,
}

impl Node {
    /// Every permanent node below this one, by path. Clients and requests come and go.
    pub(crate) fn walk(&self) -> BTreeMap<String, &Node> {
        let mut all = BTreeMap::new();
        self.collect("", &mut all);
        all
    }

    fn collect<'n>(&'n self, above: &str, all: &mut BTreeMap<String, &'n Node>) {
        for child in self.children.iter().filter(|it| it.restart.as_deref() == Some("permanent")) {
            let path = format!("{above}{}", child.id);
            child.collect(&format!("{path}/"), all);
            all.insert(path, child);
        }
    }

    /// The node at a path; this one for none.
    pub(crate) fn at(&self, path: &str) -> Option<&Node> {
        path.split('/')
            .filter(|id| !id.is_empty())
            .try_fold(self, |at, id| at.children.iter().find(|child| child.id == id))
    }

    pub(crate) fn is_worker(&self) -> bool {
        self.strategy.is_none()
    }

    /// Who gets a new incarnation when the node at this path ends: itself with all below it, and by
    /// its supervisor's strategy those after it. Written against the seed's rules. What a dynamic
    /// supervisor has comes back when somebody wants it, which is also told.
    pub(crate) fn renewed_with(&self, path: &str) -> (BTreeSet<String>, BTreeSet<String>) {
        let (above, id) = path.rsplit_once('/').unwrap_or(("", path));
        let (mut must, mut may) = (BTreeSet::new(), BTreeSet::new());
        let Some(parent) = self.at(above) else { return (must, may) };
        let Some(at) = parent.children.iter().position(|child| child.id == id) else {
            return (must, may);
        };
        let whose = match parent.strategy.as_deref() {
            Some("rest_for_one") => at..parent.children.len(),
            Some("one_for_all") => 0..parent.children.len(),
            _ => at..at + 1,
        };
        let above = if above.is_empty() { String::new() } else { format!("{above}/") };
        for child in parent.children.get(whose).unwrap_or_default() {
            if child.restart.as_deref() != Some("permanent") {
                continue;
            }
            let path = format!("{above}{}", child.id);
            let below = child.walk().into_keys().map(|below| format!("{path}/{below}"));
            if child.strategy.as_deref() == Some("dynamic") {
                may.extend(below);
            } else {
                must.extend(below);
            }
            must.insert(path);
        }
        (must, may)
    }
}

/// What the daemon holds of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) threads: u64,
    pub(crate) files: u64,
    pub(crate) anon_kib: u64,
    /// What the accounts in `status` come to: text and trees count once for each file that has them.
    pub(crate) held_kib: u64,
    pub(crate) processes: u64,
    pub(crate) nodes: u64,
}

/// The daemon, and the directory that holds its socket and its state.
#[derive(Debug)]
pub(crate) struct House {
    dir: TempDir,
    process: Child,
}

impl House {
    /// Starts the program as a daemon in a new directory.
    pub(crate) fn start(binary: &Path) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        std::fs::create_dir(dir.path().join(HOME))?;
        let process = serve(binary, dir.path())?;
        Ok(Self { dir, process })
    }

    /// Waits for the daemon to end by itself, and starts another in its place.
    pub(crate) fn succeed(&mut self, binary: &Path) -> Result<ExitStatus> {
        let status = self.wait()?;
        self.process = serve(binary, self.dir.path())?;
        Ok(status)
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            ensure!(started.elapsed() < PATIENCE, "the daemon doesn't end");
            pause(Duration::from_millis(5));
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("daemon.sock")
    }

    /// The daemon's home directory.
    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join(HOME)
    }

    /// The daemon's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn client(&self) -> Result<Client> {
        connect(&self.socket())
    }

    /// Opens a root, waits until it is indexed, and says how large it is.
    pub(crate) fn open(&self, root: &Path) -> Result<WorkspaceStatus> {
        let params = OpenParams { path: root.to_string_lossy().into_owned() };
        Ok(self.client()?.call(method::OPEN, &params)?)
    }

    /// The tree, as soon as somebody can tell.
    pub(crate) fn look(&self) -> Result<Node> {
        let started = Instant::now();
        loop {
            match self.try_look() {
                Ok(node) => return Ok(node),
                Err(error) if started.elapsed() > PATIENCE => return Err(error),
                Err(_) => pause(Duration::from_millis(1)),
            }
        }
    }

    pub(crate) fn try_look(&self) -> Result<Node> {
        let params = TreeParams { format: TreeFormat::Json };
        let shown: TreeResult = self.client()?.call(method::TREE, &params)?;
        let tree = shown.tree.context("the daemon shows no tree")?;
        Ok(serde_json::from_str(tree.get())?)
    }

    /// Ends a node. Whether that was heard is seen by what follows: the gateway may be gone before
    /// its answer.
    pub(crate) fn kill(&self, path: &str) -> Result<()> {
        let params = KillParams { path: path.to_owned() };
        let _unheard = self.client()?.call::<_, serde_json::Value>(method::KILL, &params);
        Ok(())
    }

    pub(crate) fn fault(&self, path: &str, fault: FaultKind, slow_ms: Option<u64>) -> Result<()> {
        let params =
            FaultParams { path: path.to_owned(), fault, slow_ms, ..FaultParams::default() };
        let _unheard = self.client()?.call::<_, serde_json::Value>(method::FAULT, &params);
        Ok(())
    }

    /// The processes that parse.
    pub(crate) fn parsers(&self) -> Result<Vec<u32>> {
        let mut parsers = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // One that has ended meanwhile is none.
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            if field(&status, "PPid:") == Some(u64::from(self.pid())) {
                parsers.push(pid);
            }
        }
        Ok(parsers)
    }

    pub(crate) fn status(&self) -> Result<StatusResult> {
        Ok(self.client()?.call(method::STATUS, &StatusParams::default())?)
    }

    pub(crate) fn resources(&self) -> Result<Resources> {
        let nodes = count(&self.look()?);
        let memory = self.status()?.memory;
        let pid = self.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(Resources {
            threads: field(&status, "Threads:").context("no count of threads")?,
            files: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
            anon_kib: field(&status, "RssAnon:").context("no anonymous memory")?,
            held_kib: (memory.text + memory.trees + memory.indexes + memory.caches) >> 10,
            processes: self.parsers()?.len() as u64,
            nodes,
        })
    }

    /// What the daemon holds once nothing is under way: no more than before, if that is known.
    pub(crate) fn rested(&self, before: Option<&Resources>) -> Result<Resources> {
        let began = Instant::now();
        let mut last = self.resources()?;
        loop {
            // Idle threads of the runtime end after ten seconds.
            pause(Duration::from_millis(250));
            let now = self.resources()?;
            let is_rested = match before {
                None => now.threads == last.threads && now.nodes == last.nodes,
                Some(before) => {
                    // A soak leaves up to twice the files that it found, and more beside them.
                    let explained = now.held_kib.saturating_sub(before.held_kib);
                    let anon_kib_max = before.anon_kib * 5 / 4 + MEMORY_MARGIN_KIB + explained;
                    now.threads <= before.threads + LEFT_OVER_MAX
                        && now.files <= before.files + LEFT_OVER_MAX
                        && now.nodes <= before.nodes
                        && now.processes <= before.processes.max(6)
                        && now.anon_kib <= anon_kib_max
                }
            };
            if is_rested {
                return Ok(now);
            }
            ensure!(began.elapsed() < PATIENCE, "before {before:?}, and {now:?} is left");
            last = now;
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

pub(crate) fn connect(socket: &Path) -> Result<Client> {
    let peer = Peer { name: "xtask".to_owned(), version: "0.0.0".to_owned() };
    Ok(Client::connect(socket, peer, PATIENCE)?.0)
}

/// Lets time pass. The daemon is another process: what happens in it raises no event here.
pub(crate) fn pause(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|it| !it.is_zero()) {
        std::thread::park_timeout(left);
    }
}

fn serve(binary: &Path, dir: &Path) -> Result<Child> {
    let mut process = Command::new(binary)
        .args(["serve", "--spawned", "--allow-debug", "--idle-timeout", "never"])
        .env("ASTSCOPE_RUNTIME_DIR", dir)
        .env("ASTSCOPE_STATE_DIR", dir.join("state"))
        .env("ASTSCOPE_PARSER_FAULTS", MARKER)
        .env("ASTSCOPE_LOG", "error")
        // Nobody's settings and nobody's ignore rules: what is seen here is seen everywhere.
        .env("HOME", dir.join(HOME))
        .env("XDG_CONFIG_HOME", dir.join("config"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    let stdout = process.stdout.take().context("its output is a pipe")?;
    let mut said = String::new();
    BufReader::new(stdout).read_line(&mut said)?;
    ensure!(said == "ready\n", "the daemon said {said:?}");
    Ok(process)
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn count(node: &Node) -> u64 {
    1 + node.children.iter().map(count).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Node {
        let text = r#"{"id":"daemon","strategy":"one_for_one","state":"up","incarnation":1,"children":[
            {"id":"a","restart":"permanent","state":"up","incarnation":1},
            {"id":"g","strategy":"rest_for_one","intensity":10,"periodMs":60000,"restart":"permanent","state":"up","incarnation":1,"children":[
                {"id":"x","restart":"permanent","state":"up","incarnation":1},
                {"id":"once","restart":"temporary","state":"up","incarnation":1},
                {"id":"d","strategy":"dynamic","restart":"permanent","state":"up","incarnation":1,"children":[
                    {"id":"w","restart":"permanent","state":"up","incarnation":1}]}]}]}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn who_is_renewed_is_what_the_strategy_says() {
        let renewed = |path: &str| {
            let (must, may) = tree().renewed_with(path);
            (must.into_iter().collect::<Vec<_>>(), may.into_iter().collect::<Vec<_>>())
        };
        let own = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
        assert_eq!(renewed("a"), (own(&["a"]), own(&[])));
        assert_eq!(renewed("g/x"), (own(&["g/d", "g/x"]), own(&["g/d/w"])));
        assert_eq!(renewed("g/d"), (own(&["g/d"]), own(&["g/d/w"])));
        assert_eq!(renewed("g"), (own(&["g", "g/d", "g/d/w", "g/x"]), own(&[])));
    }

    #[test]
    fn a_field_of_proc_is_its_number() {
        let status = "Name:\tx\nThreads:\t12\nRssAnon:\t   340 kB\n";
        assert_eq!((field(status, "Threads:"), field(status, "RssAnon:")), (Some(12), Some(340)));
        assert_eq!(field(status, "PPid:"), None);
    }
}
