//! Programs of the machine's that are run to their end: with a limit on their time, and with what they say kept for the error.

use std::{
    ffi::{OsStr, OsString},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::process::Command;

use super::Error;

/// Bytes that an error quotes of what a program said; the end is where the reason is.
const QUOTED: usize = 600;

/// How a program ended, and what it said.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    /// On one line.
    pub(super) stderr: String,
}

/// Runs a program that must succeed, and answers with what it printed.
pub(super) async fn run<A: AsRef<OsStr>>(
    program: &'static str,
    arguments: &[A],
    limit: Duration,
) -> Result<String, Error> {
    let ended = ask(program, arguments, limit).await?;
    if ended.status.success() { Ok(ended.stdout) } else { Err(failed(program, arguments, ended)) }
}

/// Runs a program, however it ends. It is killed when its time is over, and when nobody waits for it any more.
pub(super) async fn ask<A: AsRef<OsStr>>(
    program: &'static str,
    arguments: &[A],
    limit: Duration,
) -> Result<Ended, Error> {
    let mut command = Command::new(program);
    // What is looked for in its words is English.
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(limit, command.output()).await {
        Ok(Ok(output)) => Ok(Ended {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: on_a_line(&String::from_utf8_lossy(&output.stderr)),
        }),
        Ok(Err(source)) => Err(Error::NotRun { program, source }),
        Err(_elapsed) => Err(Error::TimedOut { program, arguments: joined(arguments), limit }),
    }
}

/// The error of a program that ended otherwise than it should.
pub(super) fn failed<A: AsRef<OsStr>>(program: &'static str, arguments: &[A], ended: Ended) -> Error {
    let Ended { status, stderr, .. } = ended;
    Error::Failed { program, arguments: joined(arguments), status, stderr }
}

/// The end of what a program said, on one line.
pub(super) fn on_a_line(said: &str) -> String {
    let line = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    match line.char_indices().map(|(at, _)| at).find(|at| line.len() - at <= QUOTED) {
        Some(from) if from > 0 => format!("…{}", &line[from..]),
        Some(_) | None => line,
    }
}

/// Arguments as a program takes them.
pub(super) fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.map(OsString::from).into()
}

fn joined<A: AsRef<OsStr>>(arguments: &[A]) -> String {
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.as_ref().to_string_lossy()).collect();
    arguments.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn what_a_program_says_is_in_the_error() {
        let said = run("sh", &["-c", "echo good; echo bad >&2"], LONG).await.unwrap();
        assert_eq!(said, "good\n");
        let error =
            run("sh", &["-c", "echo one >&2; echo two >&2; exit 3"], LONG).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with(": one; two"), "{error}");
        let error = run("no-such-program", &[""; 0], LONG).await.unwrap_err();
        assert!(matches!(error, Error::NotRun { program: "no-such-program", .. }), "{error}");
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("echo $$ > {}; exec sleep 600", pid.display());
        let limit = Duration::from_secs(2);
        let error = ask("sh", &["-c", &script], limit).await.unwrap_err().to_string();
        assert!(error.contains("has not ended after 2s"), "{error}");
        let pid = fs_err::read_to_string(pid).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        let deadline = std::time::Instant::now() + LONG;
        // It may stay a zombie until the runtime has waited for it.
        while fs_err::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(std::time::Instant::now() < deadline, "it still runs");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[test]
    fn only_the_end_of_much_is_quoted() {
        let much = "é".repeat(1000);
        let quoted = on_a_line(&format!("{much}\n\n the reason \n"));
        assert!(quoted.starts_with("…é") && quoted.ends_with("é; the reason"), "{quoted}");
        assert!(quoted.len() <= QUOTED + 3);
    }
}
