//! The recipes of `deploy/` as their engines run them, over backups of the real Cinder: the merged results of the shards are those of a
//! single check.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::program::{Program, answer, bare, binary};
use crate::real_backups::{Die, GIB, Job, RealBackups, Store, VolumeData};
use crate::servers::{self, is_alive, root, run, slurm};

const MIB: u64 = 1 << 20;
/// As in the recipes.
const SHARDS: usize = 8;
/// Options that make a backup of now old enough.
const NOW: [&str; 1] = ["--settle=1s"];

/// A Cinder with chains of several lengths, its catalog, and what one check of all finds.
struct Site {
    cinder: RealBackups,
    store: Store,
    catalog: PathBuf,
    whole: Results,
}

/// Results by their ids, and ids of rows, without what differs between two checks.
type Results = (BTreeMap<String, Value>, BTreeSet<String>);

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| {
        let cinder = RealBackups::new();
        let store = Store::posix(&cinder.path("store"));
        let (mut jobs, mut damaged) = (Vec::new(), String::new());
        // Chains of one to three backups. A chain of three is expected to have three of 13 GiB, and so is split over shards.
        for (volume, length) in [1, 1, 2, 3, 1, 2, 1, 1, 1].into_iter().enumerate() {
            let mut data = VolumeData::zeros(cinder.volumes.join(format!("v{volume}")), GIB, volume as u64);
            let mut parent: Option<String> = None;
            let volume_id = uuid::Uuid::new_v4().to_string();
            for number in 0..length {
                data.scribble(number * 40 * MIB, MIB).scribble(500 * MIB + number * 64 * MIB, MIB);
                let copy = data.copy(cinder.volumes.join(format!("v{volume}-{number}")));
                let name = format!("b{volume}-{number}");
                let job = Job::backup(&store, &name, &volume_id, &copy).object_size(32 * MIB).compression("zstd");
                jobs.push(match &parent {
                    Some(parent) => job.on(parent),
                    None if volume == 8 => job.die(Die::Metadata),
                    None => job,
                });
                parent = Some(name);
            }
        }
        for done in cinder.run(&jobs).iter().filter(|done| done.text("display_name") == "b2-1") {
            damaged = done.text("service_metadata");
        }
        let object = find(&cinder.path("store"), &format!("{damaged}-00001"));
        let mut bytes = fs::read(&object).expect("an object");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&object, bytes).expect("the object is ours");
        // No object may be younger than the settle time: the first check and the shards would differ.
        std::thread::sleep(Duration::from_secs(2));
        let program = Program::on(cinder.database.url());
        let catalog = cinder.path("catalog.jsonl");
        fs::write(&catalog, program.expect(0, &["scan", "--all", "-f", "jsonl"]).stdout).expect("a new file");
        let (from, flags) = (format!("--from={}", catalog.display()), store.flags());
        let mut args: Vec<&str> = vec!["check", &from, "--level=deep", "-f", "jsonl"];
        args.extend(NOW.iter().copied().chain(flags.iter().map(String::as_str)));
        let whole = results(&program.expect(9, &args).stdout);
        assert_eq!(whole.0.len(), 13);
        Site { cinder, store, catalog, whole }
    })
}

/// A file of this name below a folder.
fn find(folder: &Path, name: &str) -> PathBuf {
    let found = run(Command::new("find").arg(folder).arg("-path").arg(format!("*/{name}")));
    PathBuf::from(found.lines().next().unwrap_or_else(|| panic!("no {name} in {}", folder.display())))
}

fn results(stream: &str) -> Results {
    let (mut results, mut rows) = (BTreeMap::new(), BTreeSet::new());
    for line in stream.lines() {
        let mut line: Value = serde_json::from_str(line).expect("JSON lines");
        if let Some(row) = line.get("row") {
            rows.insert(row["id"].to_string());
        }
        if let Some(result) = line["result"].as_object_mut() {
            // When, where and in how many parts it was read.
            for field in ["checked_at", "host", "depth"] {
                result.remove(field);
            }
            let known = results.insert(result["id"].to_string(), Value::Object(result.clone()));
            assert!(known.is_none(), "one result of each backup");
        }
    }
    (results, rows)
}

impl Site {
    fn program(&self) -> Program {
        Program::on(self.cinder.database.url())
    }

    /// The merged results of these parts.
    fn merged(&self, parts: &[PathBuf]) -> Results {
        let mut args = vec!["check".to_owned(), "merge".to_owned()];
        args.extend(parts.iter().map(|part| part.display().to_string()));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        results(&self.program().expect(9, &args).stdout)
    }

    /// A folder for the parts, with the catalog.
    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.cinder.path(name);
        fs::create_dir(&folder).expect("a new folder");
        fs::copy(&self.catalog, folder.join("catalog.jsonl")).expect("a copy");
        folder
    }
}

/// Waits for something that a cluster does.
#[track_caller]
fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{what} did not happen");
        sleep(Duration::from_millis(50));
    }
}

/// The process that writes a part.
fn writer_of(part: &Path) -> Option<Pid> {
    let option = part.display().to_string();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        let mut words = command.split(|byte| *byte == 0);
        let is_program = words.next()?.ends_with(b"cinder-backup-repair");
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Pid::from_raw(pid).filter(|_| is_program && words.any(|word| word == option.as_bytes()))
    })
}

#[test]
fn a_slurm_task_that_is_killed_is_queued_again_and_goes_on() {
    servers::refuse_in_fast_run("Slurm");
    let (site, slurm) = (site(), slurm::start());
    let folder = site.folder("slurm");
    let script = root().join("deploy/slurm/check.sbatch");
    let mut sbatch = slurm.command("sbatch");
    sbatch.arg("--parsable").arg(format!("--output={}/%a.log", folder.display())).args(["--cpus-per-task=1", "--mem=16M"]);
    // Slow enough to be killed between two results.
    sbatch.arg(script).arg(&folder).args(["--level=deep", "--limit-rate=1M"]).args(NOW).args(site.store.flags());
    let job = run(sbatch.env("CBR_PROGRAM", binary()).env("CBR_SHARDS", SHARDS.to_string()).current_dir(&folder));
    let parts: Vec<PathBuf> = (1..=SHARDS).map(|number| folder.join(format!("part-{number}.jsonl"))).collect();

    let killed = wait_for("a result of a shard with more", || {
        let running = parts.iter().enumerate().find_map(|(index, part)| {
            let partial = fs::read_to_string(part.with_extension("jsonl.partial")).ok()?;
            let pid = partial.contains("\n{\"result\":").then(|| writer_of(part)).flatten()?;
            Some((index + 1, pid, part))
        });
        let (number, pid, part) = running?;
        kill_process(pid, Signal::KILL).ok()?;
        (!part.exists()).then_some((number, pid))
    });
    let log = || fs::read_to_string(folder.join(format!("{}.log", killed.0))).unwrap_or_default();
    wait_for("the end of the killed process", || {
        (!is_alive(killed.1) && log().contains("exit code 137: this shard is queued again")).then_some(())
    });
    let task = format!("{}_{}", job.trim(), killed.0);
    wait_for("the queued task", || slurm.run("squeue", &["-h", "-r", "-o", "%i %T"]).contains(&format!("{task} PENDING")).then_some(()));
    // Slurm would wait for two minutes.
    slurm.run("scontrol", &["update", &format!("JobId={task}"), "StartTime=now"]);
    wait_for("the end of the array", || slurm.run("squeue", &["-h"]).is_empty().then_some(()));
    assert!(log().contains("carried over from the earlier check"), "{}", log());
    assert_eq!(site.merged(&parts), site.whole);
}

#[test]
fn an_indexed_job_of_kubernetes_checks_every_shard() {
    servers::refuse_in_fast_run("Cinder");
    let (site, manifest) = (site(), root().join("deploy/kubernetes/check-job.yaml"));
    run(Command::new(tool("kubernetes-validate")).arg("--strict").arg(&manifest));
    let job: Value = serde_norway::from_str(&fs::read_to_string(manifest).unwrap()).unwrap();
    let (spec, pod) = (&job["spec"], &job["spec"]["template"]["spec"]);
    let failing = &spec["podFailurePolicy"]["rules"][1];
    assert_eq!((&failing["action"], &failing["onExitCodes"]["values"]), (&"FailIndex".into(), &serde_json::json!([2, 4, 5, 9, 12])));
    assert_eq!((spec["completions"].as_u64(), &spec["completionMode"]), (Some(SHARDS as u64), &"Indexed".into()));
    let container = &pod["containers"][0];
    for (path, wanted) in [("/readOnlyRootFilesystem", true), ("/allowPrivilegeEscalation", false)] {
        assert_eq!(container["securityContext"].pointer(path), Some(&wanted.into()));
    }
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);

    let folder = site.folder("kubernetes");
    let conf = folder.join("cinder.conf");
    let options = site.store.options.iter().map(|(name, value)| format!("{name} = {value}\n"));
    fs::write(&conf, format!("[DEFAULT]\n{}", options.collect::<String>())).unwrap();
    let mut codes = Vec::new();
    for index in 0..SHARDS {
        let index = index.to_string();
        let variable = |variable: &Value| {
            // The value of an annotation is the index.
            let value = variable["value"].as_str().unwrap_or(&index);
            (variable["name"].as_str().unwrap().to_owned(), value.to_owned())
        };
        let variables: Vec<(String, String)> = container["env"].as_array().unwrap().iter().map(variable).collect();
        // As the kubelet does, and with the mounts where the test may write.
        let argument = |argument: &Value| {
            let mut text = argument.as_str().unwrap().to_owned();
            for (name, value) in &variables {
                text = text.replace(&format!("$({name})"), value);
            }
            text.replace("/check/", &format!("{}/", folder.display())).replace("/etc/cinder/cinder.conf", &conf.display().to_string())
        };
        let arguments: Vec<String> = container["args"].as_array().unwrap().iter().map(argument).collect();
        assert_eq!(container["command"], serde_json::json!(["cinder-backup-repair"]));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(NOW).collect();
        let done = answer(bare(&arguments).envs(variables.iter().cloned()));
        assert!(matches!(done.code, Some(0 | 9)), "{done:?}");
        codes.push(done.code);
        // A pod that is started again although its shard is finished.
        let again = answer(bare(&arguments).envs(variables));
        assert_eq!(again.code, done.code, "{again:?}");
    }
    assert!(codes.contains(&Some(9)) && codes.contains(&Some(0)), "{codes:?}");
    let parts: Vec<PathBuf> = (0..SHARDS).map(|index| folder.join(format!("part-{index}.jsonl"))).collect();
    assert_eq!(site.merged(&parts), site.whole);
}

#[test]
fn the_playbook_scans_checks_merges_and_plans() {
    servers::refuse_in_fast_run("Ansible");
    let (site, folder) = (site(), site().cinder.path("ansible"));
    fs::create_dir(&folder).unwrap();
    let hosts = ["db", "store1", "store2", "store3"];
    let line = |host: &&str| format!("{host} cbr_dir={}", folder.join(host).display());
    let [db, storage @ ..] = hosts.each_ref().map(line);
    let python = tool("python").display().to_string();
    let local = format!("[all:vars]\nansible_connection=local\nansible_python_interpreter={python}\n");
    let inventory = folder.join("inventory");
    fs::write(&inventory, format!("[cinder_database]\n{db}\n[cinder_storage]\n{}\n{local}", storage.join("\n"))).unwrap();
    let options: Vec<String> = NOW.iter().map(|option| (*option).to_owned()).chain(site.store.flags()).collect();
    let variables = serde_json::json!({
        "program": binary(), "collected": folder.join("collected"), "options": options,
        "plan_options": ["--older-than=0s", "--assume-dead=all", "--settle=1s"], "poll_seconds": 1,
    });
    let mut playbook = Command::new(tool("ansible-playbook"));
    playbook.arg("-i").arg(inventory).arg(root().join("deploy/ansible/check.yml")).arg("-e").arg(variables.to_string());
    playbook.env("CINDER_DATABASE_URL", site.cinder.database.url());
    for (name, place) in [("ANSIBLE_HOME", "home"), ("ANSIBLE_REMOTE_TEMP", "tmp"), ("ANSIBLE_ASYNC_DIR", "async")] {
        playbook.env(name, folder.join(place));
    }
    run(playbook.env("ANSIBLE_LOCALHOST_WARNING", "false").env("LC_ALL", "C.UTF-8").current_dir(&folder));
    let checked = folder.join("db/checked.jsonl");
    assert_eq!(results(&fs::read_to_string(checked).unwrap()), site.whole);
    let plan: Value = serde_json::from_slice(&fs::read(folder.join("db/plan.json")).unwrap()).unwrap();
    let units = plan["units"].as_array().unwrap();
    assert_eq!(units.len(), 1, "the backup whose cinder-backup was killed: {plan}");
}

/// A program of the environment that `tests/run` makes for these recipes.
fn tool(name: &str) -> PathBuf {
    let path = root().join(".cache/deploy-venv/bin").join(name);
    assert!(path.exists(), "{} is missing; tests/run makes it", path.display());
    path
}
