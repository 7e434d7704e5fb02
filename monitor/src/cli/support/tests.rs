//! A bundle under test: secrets are planted wherever one can be, and looked for in what comes out.

use std::collections::BTreeMap;

use flate2::read::GzDecoder;

use super::*;

/// The archive's files by name.
fn unpack(bytes: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(bytes));
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.insert(name, text);
    }
    files
}

#[test]
fn planted_secrets_do_not_come_out() {
    const PLANTED: [&str; 9] = [
        "urltoken-1111",
        "pa55word-2222",
        "query-3333",
        "bearer-4444",
        "plain-5555",
        "file-6666",
        "cmdline-7777",
        "kernelcmd-8888",
        "texted-9999",
    ];
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("token"), "file-6666-secret\n").unwrap();
    // As outputs write them; `written` is what the configuration says, whatever this version knows of outputs.
    let outputs = serde_json::json!([{
        "type": "webhook", "url": "https://user:pa55word-2222@hooks.example/urltoken-1111?k=query-3333",
        "headers": {"Authorization": "Bearer bearer-4444"}, "token": "plain-5555",
        "token_file": at("token"),
    }]);
    let loaded = config::loaded_with_written("outputs", outputs);
    let secrets = loaded.secrets();
    let log_text = [
        "2026-11-27T04:05:06.123456Z  INFO listening address=127.0.0.1:9477",
        r#"{"time":"2026-11-27T04:05:06Z","output":"x","output_fields":{"proc.cmdline":"curl -H cmdline-7777"}}"#,
        "04:05:06.123 Warning  r  setns by curl -H texted-9999",
        "2026-11-27T04:05:07.123456Z  WARN an output said: bearer-4444 and file-6666-secret and plain-5555",
        "free text with cmdline-7777",
    ];
    let mut parts = Vec::new();
    settings_and_state(&loaded, Some(&at("none.sock")), &mut parts);
    std::fs::write(at("log"), log_text.join("\n")).unwrap();
    parts.push(Part { name: "log.txt", about: "a", text: log(Some(&at("log"))) });
    let words =
        facts::command_line("quiet lockdown=integrity systemd.set_credential=x:kernelcmd-8888 lsm=bpf");
    assert_eq!(words, ["lockdown=integrity", "lsm=bpf"]);
    parts.push(Part { name: "kernel.txt", about: "a", text: words.join(" ") });
    // Somebody's text that repeats what the configuration says, as JSON.
    parts.push(Part { name: "other.txt", about: "a", text: "{\"x\":\"Bearer bearer-4444\"}".to_owned() });
    let mut bytes = Vec::new();
    write(&scrubbed(parts, &secrets), &mut bytes).unwrap();
    let files = unpack(&bytes);
    for (name, text) in &files {
        for secret in PLANTED {
            assert!(!text.contains(secret), "{secret} is in {name}: {text}");
        }
    }
    let of = |name: &str| &files[&format!("ringfence-support/{name}")];
    assert!(of("log.txt").contains("listening address=") && of("log.txt").contains(REMOVED), "{files:?}");
    assert!(of("log.txt").contains("(3 lines that are none"), "{}", of("log.txt"));
    assert!(of("config.yaml").contains("\"https://hooks.example/(not shown)\""), "{}", of("config.yaml"));
    assert!(of("status.json").contains("no daemon answers"), "{}", of("status.json"));
    for name in ["config.yaml", "status.json", "top.json", "metrics.txt", "log.txt", "kernel.txt"] {
        assert!(of("contents.txt").contains(name), "{name} is not listed");
    }
}

#[test]
fn the_machine_is_told_without_what_could_be_a_secret() {
    let text = facts::text();
    assert!(text.starts_with("kernel: ") && text.contains("/proc/meminfo: MemTotal"), "{text}");
    let mounts = facts::mounts(
        "25 30 0:23 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n\
         99 30 0:50 / /mnt rw - cifs //host/share rw,username=u,password=x\nnonsense\n",
    );
    assert_eq!(mounts, ["cgroup2 at /sys/fs/cgroup (rw,nsdelegate)"]);
}

#[test]
fn a_log_is_its_last_part() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let line = "2026-11-27T04:05:06.123456Z  INFO number=";
    let text: String = (0..300_000).map(|number| format!("{line}{number}\n")).collect();
    std::fs::write(&path, &text).unwrap();
    let log = log(Some(&path));
    assert!(
        log.len() as u64 <= MAX_PART + 100 && log.contains("number=299999\n") && !log.contains("number=0\n")
    );
    assert!(super::log(Some(&dir.path().join("none"))).starts_with("no log: "));
}

/// In a container nobody may be able to make a file: the archive alone goes to standard output.
#[test]
fn an_archive_can_be_a_stream() {
    let args = ["ringfence", "support", "-o", "-", "--log", "-"];
    assert!(<crate::cli::Cli as clap::Parser>::try_parse_from(args).is_ok());
    let part = || Part { name: "kernel.txt", about: "the machine", text: "kernel: x\n".to_owned() };
    let (mut archive, mut list) = (Vec::new(), Vec::new());
    assert!(to_stream(&[part()], &mut archive, &mut list).is_ok());
    assert_eq!(unpack(&archive)["ringfence-support/kernel.txt"], "kernel: x\n");
    assert!(String::from_utf8(list).unwrap().starts_with("kernel.txt"));
    assert!(to_stream(&[part()], &mut &mut [0_u8; 8][..], &mut Vec::new()).is_err(), "it did not fit");
}

#[test]
fn a_log_on_standard_input_is_its_last_part() {
    let line = "2026-11-27T04:05:06.123456Z  INFO number=";
    let text: String = (0..500_000).map(|number| format!("{line}{number}\n")).collect();
    let read = last_read(text.as_bytes()).unwrap();
    assert_eq!(read.len() as u64, MAX_PART);
    assert!(text.ends_with(&read));
    assert_eq!(last_read(&b"x\n"[..]).unwrap(), "x\n");
}
