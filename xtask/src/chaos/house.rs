//! A daemon that may be hurt, on a tree of its own: what it runs, and what it holds of the machine.

use anyhow::{Context, Result, ensure};
use astscope_protocol::Client;
use astscope_protocol::messages::{
    FaultKind, FaultParams, KillParams, OpenParams, Peer, TreeFormat, TreeParams, TreeResult,
    WorkspaceStatus, method,
};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything that has no bound of its own may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What a file says, with a fault's name behind it, that is to hurt its parser.
pub(super) const MARKER: &str = "HURT";

/// A node of the supervision tree.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) strategy: Option<String>,
    pub(super) intensity: Option<usize>,
    pub(super) period_ms: Option<u64>,
    /// Behind a firewall, which waits so long before it starts the node again.
    pub(super) degrade_ms: Option<u64>,
    pub(super) restart: Option<String>,
    pub(super) state: String,
    pub(super) incarnation: u64,
    #[serde(default)]
    pub(super) children: Vec<Node>,
}

impl Node {
    /// Every permanent node below this one, by path. Clients and requests come and go.
    pub(super) fn walk(&self) -> BTreeMap<String, &Node> {
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
    pub(super) fn at(&self, path: &str) -> Option<&Node> {
        path.split('/')
            .filter(|id| !id.is_empty())
            .try_fold(self, |at, id| at.children.iter().find(|child| child.id == id))
    }

    pub(super) fn is_worker(&self) -> bool {
        self.strategy.is_none()
    }

    /// Who gets a new incarnation when the node at this path ends: itself with all below it, and by
    /// its supervisor's strategy those after it. Written against the seed's rules. What a dynamic
    /// supervisor has comes back when somebody wants it, which is also told.
    pub(super) fn renewed_with(&self, path: &str) -> (BTreeSet<String>, BTreeSet<String>) {
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
pub(super) struct Resources {
    pub(super) threads: u64,
    pub(super) files: u64,
    pub(super) anon_kib: u64,
    pub(super) processes: u64,
    pub(super) nodes: u64,
}

/// The daemon, and the directory that holds its socket and its state.
#[derive(Debug)]
pub(super) struct House {
    dir: TempDir,
    process: Child,
}

impl House {
    /// Starts the program as a daemon in a new directory.
    pub(super) fn start(binary: &Path) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let process = serve(binary, dir.path())?;
        Ok(Self { dir, process })
    }

    /// Waits for the daemon to end by itself, and starts another in its place.
    pub(super) fn succeed(&mut self, binary: &Path) -> Result<ExitStatus> {
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

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join("daemon.sock")
    }

    pub(super) fn client(&self) -> Result<Client> {
        connect(&self.socket())
    }

    /// Opens a root, waits until it is indexed, and says how large it is.
    pub(super) fn open(&self, root: &Path) -> Result<WorkspaceStatus> {
        let params = OpenParams { path: root.to_string_lossy().into_owned() };
        Ok(self.client()?.call(method::OPEN, &params)?)
    }

    /// The tree, as soon as somebody can tell.
    pub(super) fn look(&self) -> Result<Node> {
        let started = Instant::now();
        loop {
            match self.try_look() {
                Ok(node) => return Ok(node),
                Err(error) if started.elapsed() > PATIENCE => return Err(error),
                Err(_) => pause(Duration::from_millis(1)),
            }
        }
    }

    pub(super) fn try_look(&self) -> Result<Node> {
        let params = TreeParams { format: TreeFormat::Json };
        let shown: TreeResult = self.client()?.call(method::TREE, &params)?;
        let tree = shown.tree.context("the daemon shows no tree")?;
        Ok(serde_json::from_str(tree.get())?)
    }

    /// Ends a node. Whether that was heard is seen by what follows: the gateway may be gone before
    /// its answer.
    pub(super) fn kill(&self, path: &str) -> Result<()> {
        let params = KillParams { path: path.to_owned() };
        let _unheard = self.client()?.call::<_, serde_json::Value>(method::KILL, &params);
        Ok(())
    }

    pub(super) fn fault(&self, path: &str, fault: FaultKind, slow_ms: Option<u64>) -> Result<()> {
        let params =
            FaultParams { path: path.to_owned(), fault, slow_ms, ..FaultParams::default() };
        let _unheard = self.client()?.call::<_, serde_json::Value>(method::FAULT, &params);
        Ok(())
    }

    /// The processes that parse.
    pub(super) fn parsers(&self) -> Result<Vec<u32>> {
        let mut parsers = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // One that has ended meanwhile is none.
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            if field(&status, "PPid:") == Some(u64::from(self.process.id())) {
                parsers.push(pid);
            }
        }
        Ok(parsers)
    }

    pub(super) fn resources(&self) -> Result<Resources> {
        let nodes = count(&self.look()?);
        let pid = self.process.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(Resources {
            threads: field(&status, "Threads:").context("no count of threads")?,
            files: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
            anon_kib: field(&status, "RssAnon:").context("no anonymous memory")?,
            processes: self.parsers()?.len() as u64,
            nodes,
        })
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

pub(super) fn connect(socket: &Path) -> Result<Client> {
    let peer = Peer { name: "xtask".to_owned(), version: "0.0.0".to_owned() };
    Ok(Client::connect(socket, peer, PATIENCE)?.0)
}

/// Lets time pass. The daemon is another process: what happens in it raises no event here.
pub(super) fn pause(time: Duration) {
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
