//! Signatures of plans, check documents and the head of a log, with keys from openssl.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cinder_backup_repair::audit::digest;
use cinder_backup_repair::db::Engine;
use cinder_backup_repair::plan::Plan;
use serde_json::Value;

use super::{Refusals, stuck};
use crate::program::Program;
use crate::schemas::{Columns, fresh};

fn read(program: &Program, name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(program.path(name)).unwrap()).unwrap()
}

fn write(program: &Program, name: &str, document: &Value) {
    fs::write(program.path(name), document.to_string()).unwrap();
}

/// Edits a plan and gives it a new digest, as anyone who reads the source can.
fn forge(program: &Program, from: &str, to: &str) {
    let mut plan: Plan = serde_json::from_value(read(program, from)).unwrap();
    let signature = plan.signature.clone();
    plan.policy.assume_dead = cinder_backup_repair::domain::AssumeDead::All;
    plan.seal();
    assert_eq!(plan.signature, None, "what was signed was another plan");
    plan.signature = signature;
    fs::write(program.path(to), serde_json::to_string(&plan).unwrap()).unwrap();
}

#[test]
fn a_signed_plan_that_was_edited_is_refused() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let (backup, _) = stuck(&database, "nightly");
    let program = Program::on(database.url());
    program.key("reviewer");
    program.key("other");
    program.expect(0, &["plan", "--out", "unsigned.json"]);
    program.expect(0, &["plan", "--out", "signed.json", "--sign-key", "reviewer.pem"]);
    program.expect(0, &["plan", "--out", "foreign.json", "--sign-key", "other.pem"]);
    forge(&program, "signed.json", "forged.json");
    // A signature by another key under this key's name, and the signature of another plan.
    let mut document = read(&program, "foreign.json");
    document["signature"]["public_key"] = read(&program, "signed.json")["signature"]["public_key"].clone();
    write(&program, "renamed.json", &document);
    document = read(&program, "unsigned.json");
    document["signature"] = read(&program, "signed.json")["signature"].clone();
    write(&program, "moved.json", &document);
    document["signature"]["value"] = "no Base64".into();
    write(&program, "garbled.json", &document);
    let mut refusals = Refusals::of(&program);
    for name in ["unsigned", "foreign", "forged", "renamed", "moved", "garbled"] {
        let before = database.dump();
        for how in ["--yes", "--dry-run"] {
            let said = refusals.refuse(5, &["apply", &format!("{name}.json"), how, "--verify-key", "reviewer.pub"]);
            let why = match name {
                "unsigned" => "is not signed; --verify-key reviewer.pub accepts only what that key has signed",
                "foreign" => ") than reviewer.pub",
                _ => "has a wrong signature",
            };
            assert!(said.contains(why) && said.contains("nothing was changed"), "{name} {said}");
        }
        assert_eq!(database.dump(), before, "{name}");
    }
    assert!(!program.log().exists());
    program.expect(0, &["apply", "signed.json", "--yes", "--verify-key", "reviewer.pub"]);
    assert_eq!(database.cell("backups", &backup, "status").as_deref(), Some("error"));
}

/// The commands in docs/audit-log.md: openssl and this program verify each other's signatures. White space is ignored.
#[test]
fn openssl_and_the_program_verify_each_others_signatures() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    let program = Program::on(database.url());
    program.key("reviewer");
    program.expect(0, &["plan", "--out", "plan.json", "--sign-key", "reviewer.pem"]);
    let mut plan = read(&program, "plan.json");
    fs::write(program.path("digest"), plan["sha256"].as_str().unwrap()).unwrap();
    fs::write(program.path("sig"), STANDARD.decode(plan["signature"]["value"].as_str().unwrap()).unwrap()).unwrap();
    let verify = ["pkeyutl", "-verify", "-pubin", "-inkey", "reviewer.pub", "-rawin", "-in", "digest", "-sigfile", "sig"];
    program.openssl(&verify);
    program.openssl(&["pkeyutl", "-sign", "-inkey", "reviewer.pem", "-rawin", "-in", "digest", "-out", "own"]);
    let own = STANDARD.encode(fs::read(program.path("own")).unwrap());
    assert_eq!(plan["signature"]["value"], own.as_str(), "such signatures have no chance in them");
    plan["signature"]["value"] = own.into();
    write(&program, "plan.json", &plan);
    program.expect(0, &["apply", "plan.json", "--dry-run", "--verify-key", "reviewer.pub"]);
    // A private key that includes the public key, as other programs write it.
    let document = ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(document.as_ref()));
    fs::write(program.path("whole.pem"), pem).unwrap();
    let said = program.expect(0, &["plan", "--out", "second.json", "--sign-key", "whole.pem"]);
    assert!(said.stderr.contains("can be read by others; run chmod 600 whole.pem"), "{}", said.stderr);
}

#[test]
fn a_signed_check_document_that_was_edited_is_refused() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    let program = Program::on(database.url());
    program.key("checker");
    let check = |more: &[&str]| program.run(&[&["check", "--all", "-f", "json"], more].concat()).json();
    write(&program, "unsigned.json", &check(&[]));
    let signed = check(&["--sign-key", "checker.pem"]);
    write(&program, "signed.json", &signed);
    let mut forged: cinder_backup_repair::verify::CheckDocument = serde_json::from_value(signed).unwrap();
    let signature = forged.signature.take();
    forged.settle_seconds += 1;
    forged.seal();
    forged.signature = signature;
    write(&program, "forged.json", &serde_json::to_value(&forged).unwrap());
    for (name, code) in [("signed", 0), ("unsigned", 5), ("forged", 5)] {
        let name = format!("{name}.json");
        program.expect(0, &["plan", "--evidence", &name]);
        for args in [&["plan"] as &[&str], &["repair", "--dry-run"]] {
            program.expect(code, &[args, &["--evidence", &name, "--verify-key", "checker.pub"]].concat());
        }
        // A signed plan must not depend on unsigned evidence.
        let said = program.run(&["check", "--all", "-f", "json", "--resume", &name, "--sign-key", "checker.pem"]);
        assert_eq!(said.code == Some(5), code == 5, "{name} {}", said.stderr);
    }
}

/// A person who can write the log can compute its chain again. A signed head that is kept elsewhere shows that.
/// Each line is signed, so every beginning of a signed stream has a right signature. It may lack a later result that is worse.
#[test]
fn a_signed_stream_without_its_closing_record_is_no_evidence() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    let program = Program::on(database.url());
    program.key("host");
    program.run(&["check", "--all", "--out", "checked.jsonl", "--sign-key", "host.pem"]);
    let whole = fs::read_to_string(program.path("checked.jsonl")).unwrap();
    let (cut, _) = whole.trim_end().rsplit_once('\n').unwrap();
    fs::write(program.path("cut.jsonl"), format!("{cut}\n")).unwrap();
    fs::write(program.path("edited.jsonl"), whole.replacen("\"id\":", "\"id\": ", 1)).unwrap();
    let plan = |name: &str| {
        ["plan".to_owned(), "--evidence".to_owned(), format!("{name}.jsonl"), "--verify-key".to_owned(), "host.pub".to_owned()]
    };
    program.expect(0, &plan("checked").each_ref().map(String::as_str));
    let refused = program.expect(5, &plan("cut").each_ref().map(String::as_str));
    assert!(refused.stderr.contains("has no closing record"), "{}", refused.stderr);
    let refused = program.expect(2, &plan("edited").each_ref().map(String::as_str));
    assert!(refused.stderr.contains("was edited after it was written"), "{}", refused.stderr);
}

#[test]
fn a_signed_head_shows_that_a_log_was_cut_off_or_rewritten() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    let program = Program::on(database.url());
    program.key("auditor");
    program.key("other");
    program.expect(0, &["repair", "--yes", "--reason", "the truth"]);
    program.expect(0, &["history", "verify", "--sign-key", "auditor.pem", "--out", "head.json"]);
    program.expect(0, &["history", "verify", "--sign-key", "other.pem", "--out", "foreign.json"]);
    let verify = |code: i32, head: &str| program.expect(code, &["history", "verify", "--verify-key", "auditor.pub", "--head", head]);
    let whole = fs::read_to_string(program.log()).unwrap();
    let said = verify(0, "head.json");
    assert!(said.stderr.contains(&format!("record {} is as it was signed on 2", whole.lines().count())), "{}", said.stderr);
    // The log has grown.
    stuck(&database, "weekly");
    program.expect(0, &["repair", "--yes"]);
    verify(0, "head.json");
    // Cut off, and rewritten with every hash computed again.
    let first_lines: String = whole.lines().take(2).map(|line| format!("{line}\n")).collect();
    let (mut anew, mut previous) = (String::new(), "0".repeat(64));
    for line in whole.replace("the truth", "a lie").lines() {
        let mut record: Value = serde_json::from_str(line).unwrap();
        record.as_object_mut().unwrap().remove("digest");
        record["previous"] = previous.into();
        let content = record.to_string();
        let line = format!("{},\"digest\":\"sha256:{}\"}}", content.strip_suffix('}').unwrap(), digest(content.as_bytes()));
        previous = digest(line.as_bytes());
        anew += &(line + "\n");
    }
    for changed in [first_lines, anew] {
        fs::write(program.log(), changed).unwrap();
        assert_eq!(program.json(0, &["history", "verify"])["intact"], true);
        verify(9, "head.json");
    }
    // A head without a signature, signed with another key, or with other content.
    fs::write(program.log(), whole).unwrap();
    verify(5, "foreign.json");
    let mut head = read(&program, "head.json");
    head["last_seq"] = 1.into();
    write(&program, "edited.json", &head);
    verify(2, "edited.json");
    // A damaged log is not signed.
    let text = fs::read_to_string(program.log()).unwrap();
    fs::write(program.log(), text.replace("the truth", "the truht")).unwrap();
    program.expect(9, &["history", "verify", "--sign-key", "auditor.pem", "--out", "damaged.json"]);
    assert!(!program.path("damaged.json").exists());
}

#[test]
fn invalid_keys_are_refused() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    stuck(&database, "nightly");
    let program = Program::on(database.url());
    program.key("good");
    program.expect(0, &["plan", "--out", "plan.json"]);
    program.openssl(&["genpkey", "-algorithm", "rsa", "-pkeyopt", "rsa_keygen_bits:1024", "-out", "rsa.pem"]);
    program.openssl(&["pkey", "-in", "rsa.pem", "-pubout", "-out", "rsa.pub"]);
    program.openssl(&["pkey", "-in", "good.pem", "-aes256", "-passout", "pass:x", "-out", "locked.pem"]);
    fs::write(program.path("text"), "my key\n").unwrap();
    let mut refusals = Refusals::of(&program);
    for name in ["absent", "text", "good.pub", "rsa.pem", "locked.pem"] {
        refusals.refuse(2, &["plan", "--out", "signed.json", "--sign-key", name]);
    }
    for name in ["absent", "text", "good.pem", "rsa.pub"] {
        refusals.refuse(2, &["apply", "plan.json", "--yes", "--verify-key", name]);
    }
    assert!(!program.path("signed.json").exists() && !program.log().exists());
    insta::assert_snapshot!(refusals.said, @r"
    $ plan --out signed.json --sign-key absent
    error: cannot use the key absent: No such file or directory (os error 2)
    $ plan --out signed.json --sign-key text
    error: cannot use the key text: it holds no private key in PEM; make one with: openssl genpkey -algorithm ed25519 -out FILE
    $ plan --out signed.json --sign-key good.pub
    error: cannot use the key good.pub: it is a public key; signing needs the private key
    $ plan --out signed.json --sign-key rsa.pem
    error: cannot use the key rsa.pem: it is not an Ed25519 key; make one with: openssl genpkey -algorithm ed25519 -out FILE
    $ plan --out signed.json --sign-key locked.pem
    error: cannot use the key locked.pem: it is encrypted; decrypt it into a pipe: --sign-key <(openssl pkey -in FILE)
    $ apply plan.json --yes --verify-key absent
    error: cannot use the key absent: No such file or directory (os error 2)
    $ apply plan.json --yes --verify-key text
    error: cannot use the key text: it holds no public key in PEM (-----BEGIN PUBLIC KEY-----)
    $ apply plan.json --yes --verify-key good.pem
    error: cannot use the key good.pem: it is a private key; verifying needs the public key: openssl pkey -in FILE -pubout
    $ apply plan.json --yes --verify-key rsa.pub
    error: cannot use the key rsa.pub: it is not an Ed25519 key
    ");
}
