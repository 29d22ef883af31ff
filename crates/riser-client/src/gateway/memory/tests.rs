use std::path::Path;

use riser_core::Json;

use super::*;

const NOW: u64 = 1_000_000;

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("riser-memory-{}-{:x}", std::process::id(), fastrand::u64(..)));
        std::fs::create_dir(&path).expect("a folder");
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("commands")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn word(status: Said) -> Word {
    Word { status, code: Some("x".parse().expect("a code")), data: Some(Json::parse("[1.50]").expect("JSON")) }
}

async fn open(file: &Path) -> Memory {
    Memory::open(file, SPAN).await.expect("it opens")
}

#[tokio::test]
async fn results_survive_a_restart_and_a_torn_last_line() {
    let folder = Folder::new();
    let mut memory = open(&folder.file()).await;
    for cmd in ["a", "b", "c"] {
        memory.begin(cmd, NOW).await.expect("there is room");
    }
    memory.word("a", &word(Said::Succeeded), NOW).await;
    memory.word("b", &word(Said::Running), NOW).await;
    drop(memory);
    let mut bytes = std::fs::read(folder.file()).expect("a file");
    bytes.extend_from_slice(br#"{"cmd":"c","is":{"at_ms":1000000,"word":{"status":"succ"#);
    std::fs::write(folder.file(), bytes).expect("a file");
    let mut memory = open(&folder.file()).await;
    assert_eq!(memory.known("a"), Some(Some(word(Said::Succeeded))));
    // Begun and never ended: known, and nothing to say of it.
    assert_eq!(memory.known("b"), Some(None));
    assert_eq!(memory.known("c"), Some(None));
    assert_eq!(memory.known("d"), None);
    // What is written after the torn line can be read.
    memory.begin("d", NOW).await.expect("there is room");
    drop(memory);
    assert_eq!(open(&folder.file()).await.known("d"), Some(None));
}

#[tokio::test]
async fn a_file_that_grows_is_rewritten_and_stays_small() {
    let folder = Folder::new();
    let mut memory = Memory::open(folder.file(), Duration::from_millis(10)).await.expect("it opens");
    let fat = Word { data: Some(Json::of(&"x".repeat(RESULT_BYTES - 2))), ..word(Said::Succeeded) };
    for i in 0..400_u64 {
        let cmd = format!("cmd-{i}");
        memory.begin(&cmd, NOW + 10 * i).await.expect("there is room");
        memory.word(&cmd, &fat, NOW + 10 * i).await;
    }
    let size = std::fs::metadata(folder.file()).expect("a file").len();
    assert!(size < 1_200_000, "{size} bytes for one command");
    drop(memory);
    let memory = open(&folder.file()).await;
    assert_eq!(memory.known("cmd-399"), Some(Some(fat)));
    assert_eq!(memory.known("cmd-0"), None);
}

#[tokio::test]
async fn nothing_is_forgotten_before_its_time() {
    let mut memory = Memory::new(SPAN);
    for i in 0..COMMANDS {
        memory.begin(&i.to_string(), NOW).await.expect("there is room");
        memory.word(&i.to_string(), &word(Said::Failed), NOW).await;
    }
    let later = NOW + millis(SPAN);
    assert!(matches!(memory.begin("more", later - 1).await, Err(MemoryError::Full)));
    assert_eq!(memory.known("0"), Some(Some(word(Said::Failed))));
    assert!(memory.begin("more", later).await.is_ok());
    assert_eq!(memory.known("0"), None);
}

#[tokio::test]
async fn what_is_still_being_done_is_kept_longer_while_there_is_room() {
    let mut memory = Memory::new(SPAN);
    memory.begin("slow", NOW).await.expect("there is room");
    memory.begin("more", NOW + 10 * millis(SPAN)).await.expect("there is room");
    assert_eq!(memory.known("slow"), Some(None));
}

#[tokio::test]
async fn a_command_that_cannot_be_written_is_not_begun() {
    let folder = Folder::new();
    let mut memory = open(&folder.file()).await;
    // A folder that is not there: nothing can be written.
    if let Some(disk) = &mut memory.disk {
        disk.fail(folder.0.join("missing").join("commands"));
    }
    assert!(matches!(memory.begin("a", NOW).await, Err(MemoryError::Write(_))));
    assert_eq!(memory.known("a"), None);
    if let Some(disk) = &mut memory.disk {
        disk.fail(folder.file());
    }
    memory.begin("a", NOW).await.expect("the disk takes it again");
    drop(memory);
    assert_eq!(open(&folder.file()).await.known("a"), Some(None));
}

#[tokio::test(start_paused = true)]
async fn no_more_is_promised_than_the_time_since_it_began() {
    let memory = Memory::new(SPAN);
    assert_eq!(memory.remembers_ms(), 0);
    tokio::time::advance(Duration::from_secs(90)).await;
    assert_eq!(memory.remembers_ms(), 90_000);
    tokio::time::advance(SPAN).await;
    assert_eq!(memory.remembers_ms(), millis(SPAN));
}

#[tokio::test(start_paused = true)]
async fn a_file_shows_for_how_long_it_has_remembered() {
    let folder = Folder::new();
    let mut memory = open(&folder.file()).await;
    tokio::time::advance(Duration::from_secs(90)).await;
    memory.begin("a", NOW).await.expect("there is room");
    memory.begin("b", NOW + 10_000).await.expect("there is room");
    drop(memory);
    // It began 90 s before the first command, and the last one came 10 s after that.
    let mut memory = open(&folder.file()).await;
    assert_eq!(memory.remembers_ms(), 100_000);
    memory.begin("c", NOW + 3_600_000).await.expect("there is room");
    drop(memory);
    assert_eq!(open(&folder.file()).await.remembers_ms(), millis(SPAN));
    // What a shorter memory had forgotten a longer one does not know either.
    drop(Memory::open(folder.file(), Duration::from_secs(60)).await.expect("it opens"));
    assert_eq!(open(&folder.file()).await.remembers_ms(), 60_000);
}

#[tokio::test]
async fn a_memory_is_open_once() {
    let folder = Folder::new();
    let mut memory = open(&folder.file()).await;
    // Also after the file was replaced.
    memory.begin("a", NOW).await.expect("there is room");
    let second = Memory::open(folder.file(), SPAN).await.expect_err("it is in use");
    assert!(matches!(second, MemoryError::InUse { .. }));
    assert!(second.to_string().contains("commands\" is in use"), "{second}");
    drop(memory);
    open(&folder.file()).await;
}

#[tokio::test]
async fn what_is_somebody_elses_is_left_as_it_is() {
    let folder = Folder::new();
    for text in
        ["[settings]\n", "no line", "{\"cmd\":\"a\",\"is\":{\"at_ms\":1}}\n", "{\"riser\":\"memory of commands, 2\"}\n"]
    {
        std::fs::write(folder.file(), text).expect("a file");
        let refused = Memory::open(folder.file(), SPAN).await.expect_err(text);
        assert!(matches!(refused, MemoryError::Foreign { .. }), "{refused}");
        assert!(refused.to_string().contains("commands\""), "{refused}");
        assert_eq!(std::fs::read_to_string(folder.file()).expect("a file"), text);
    }
    let refused = Memory::open(&folder.0, SPAN).await.expect_err("a folder");
    assert!(matches!(refused, MemoryError::Open { .. }), "{refused}");
    // One that holds nothing is nobody's.
    std::fs::write(folder.file(), "").expect("a file");
    open(&folder.file()).await;
}

#[tokio::test]
async fn files_of_one_stem_do_not_meet() {
    let folder = Folder::new();
    let foreign = folder.0.join("commands.new");
    std::fs::write(&foreign, "not ours").expect("a file");
    let files = [folder.0.join("commands.1"), folder.0.join("commands.2")];
    for (file, cmd) in files.iter().zip(["a", "b"]) {
        open(file).await.begin(cmd, NOW).await.expect("there is room");
    }
    for (file, cmd) in files.iter().zip(["a", "b"]) {
        assert_eq!(open(file).await.known(cmd), Some(None));
    }
    assert_eq!(std::fs::read_to_string(&foreign).expect("a file"), "not ours");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_opened_and_turns_commands_away_until_it_has_room() {
    let folder = Folder::new();
    let mut memory = open(&folder.file()).await;
    memory.begin("a", NOW).await.expect("there is room");
    drop(memory);
    // What is written beside the file goes to a device that is always full.
    let full = || std::os::unix::fs::symlink("/dev/full", folder.0.join("commands.riser-new")).expect("a link");
    full();
    let mut memory = open(&folder.file()).await;
    assert_eq!(memory.known("a"), Some(None));
    full();
    assert!(matches!(memory.begin("b", NOW).await, Err(MemoryError::Write(_))));
    assert_eq!(memory.known("b"), None);
    memory.begin("b", NOW).await.expect("there is room again");
    drop(memory);
    let memory = open(&folder.file()).await;
    assert_eq!((memory.known("a"), memory.known("b")), (Some(None), Some(None)));
}
