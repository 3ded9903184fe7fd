//! Whether all is well with the box, and if not, what is wrong and what to do: the one judgement that `/healthz`,
//! `roentgend status` and the telemetry share. Only what a person can act on is a problem.

use super::state::State;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// A line that has not turned for so long stands still: an image takes some ten seconds on the slowest boards.
const TURN: Duration = Duration::from_secs(120);
/// A connected broker that has acknowledged nothing for so long, while reports wait.
const DRAIN: Duration = Duration::from_secs(120);
/// A broker that is away for so long is worth a word.
const AWAY: Duration = Duration::from_secs(60);
/// A broker that is away for so long, while reports wait, keeps results from the clinic.
const AWAY_TOO_LONG: Duration = Duration::from_secs(300);
/// How long lost reports are spoken of.
const LOSS: Duration = Duration::from_secs(24 * 3600);

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The box does its work; somebody should look at it all the same.
    Warning,
    /// The box does not do its work.
    Failing,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What, for machines.
    pub code: String,
    /// How bad.
    pub severity: Severity,
    /// What, in words.
    pub message: String,
    /// What to do about it.
    pub advice: String,
}

impl Problem {
    /// A problem that keeps the box from its work.
    pub fn failing(code: &str, message: impl Into<String>, advice: &str) -> Self {
        Self { code: code.into(), severity: Severity::Failing, message: message.into(), advice: advice.into() }
    }

    /// A problem that does not.
    pub fn warning(code: &str, message: impl Into<String>, advice: &str) -> Self {
        Self { severity: Severity::Warning, ..Self::failing(code, message, advice) }
    }
}

/// Whether all is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether the box does its work.
    pub healthy: bool,
    /// What is wrong, worst first; there may be warnings while it is healthy.
    pub problems: Vec<Problem>,
}

impl Health {
    /// The judgement on these problems.
    pub fn from(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
        Self { healthy: problems.iter().all(|problem| problem.severity == Severity::Warning), problems }
    }

    /// The judgement on what is known.
    pub(super) fn of(state: &State, now: Instant) -> Self {
        let mut problems = Vec::new();
        line(state, now, &mut problems);
        camera(state, &mut problems);
        broker(state, now, &mut problems);
        outbox(state, now, &mut problems);
        results(state, now, &mut problems);
        model(state, &mut problems);
        Self::from(problems)
    }
}

/// What comes in and is worked on.
fn line(state: &State, now: Instant, problems: &mut Vec<Problem>) {
    if let Some((reason, _)) = &state.closed {
        let advice = "The box goes on by itself when this is over; images stay in the drop folder meanwhile.";
        problems.push(Problem::failing("intake_closed", reason, advice));
    }
    if let Some(error) = state.dicom.as_ref().and_then(|dicom| dicom.now().error) {
        let advice = "No modality can send to the box; it goes on trying. See [source.dicom] listen.";
        problems.push(Problem::failing("dicom_not_listening", format!("DICOM: {error}"), advice));
    }
    if state.setup.is_none() {
        let message = "The model is not loaded yet.";
        problems.push(Problem::failing("starting", message, "Wait for a minute; then look at the log."));
        return;
    }
    // Before the first turn nothing is known: the thread may just have started.
    let still = state.last_turn.map_or(Duration::ZERO, |turn| now.saturating_duration_since(turn));
    if still > TURN {
        let message = format!("No image was worked on for {}: the line stands still.", spoken(still));
        let advice = "The service manager's watchdog restarts the box. If this comes back, send the log.";
        problems.push(Problem::failing("line_stalled", message, advice));
    }
}

/// What the camera brings.
fn camera(state: &State, problems: &mut Vec<Problem>) {
    let Some(camera) = &state.camera else { return };
    if let Some(away) = &camera.away {
        let advice = "Films are taken again by themselves as soon as the camera is back; other doors are not affected.";
        problems.push(Problem::failing("camera_away", format!("No pictures come from the {away}"), advice));
    }
    if let Some(complaint) = &camera.complaint {
        let advice = "The film is not reported until this is mended; it is looked at again every few seconds.";
        problems.push(Problem::warning("film_unusable", complaint, advice));
    }
    if let Some(unfit) = &camera.reference_unfit {
        let advice = "Films are taken all the same; how the light box shines is told from what is seen around them.";
        problems.push(Problem::warning("reference_unfit", unfit, advice));
    }
}

/// What goes out.
fn broker(state: &State, now: Instant, problems: &mut Vec<Problem>) {
    let Some(broker) = &state.broker else { return };
    let unsent = state.queue.map_or(0, |queue| queue.unsent);
    let since = now.saturating_duration_since(state.broker_since);
    if broker.connected {
        let still = now.saturating_duration_since(state.queue_moved);
        if unsent > 0 && still > DRAIN {
            let message = format!(
                "{unsent} reports wait, and the broker has acknowledged none for {}, although it is connected.",
                spoken(still)
            );
            let advice = "See whether the broker's disk is full, and whether it lets this user publish.";
            problems.push(Problem::failing("drain_stuck", message, advice));
        }
    } else if since > AWAY {
        let error = broker.error.as_deref().map(|error| format!(" ({error})")).unwrap_or_default();
        let advice =
            "See that the broker runs and that [mqtt] url names it; reports are kept and sent when it is back.";
        let away = format!("No connection to the broker for {}{error}", spoken(since));
        problems.push(if unsent > 0 && since > AWAY_TOO_LONG {
            Problem::failing("broker_away", format!("{away}; {unsent} reports wait."), advice)
        } else {
            Problem::warning("broker_away", format!("{away}."), advice)
        });
    }
}

/// What is kept.
fn outbox(state: &State, now: Instant, problems: &mut Vec<Problem>) {
    if state.dropped_at.is_some_and(|at| now.saturating_duration_since(at) < LOSS) {
        let message = format!("{} reports were dropped before the broker had them.", state.counts.dropped);
        let advice =
            "The broker was away for too long: mend that, or raise the bounds of [outbox]. The images are in done/.";
        problems.push(Problem::warning("reports_dropped", message, advice));
    }
    if let Some(what) = &state.set_aside {
        let advice = "Have the disk or card checked: they break before they fail.";
        problems.push(Problem::warning("outbox_set_aside", what, advice));
    }
}

/// What goes back to the PACS.
fn results(state: &State, now: Instant, problems: &mut Vec<Problem>) {
    let Some(standing) = &state.results else { return };
    if let Some((trouble, since)) = &standing.trouble
        && now.saturating_duration_since(*since) > AWAY
    {
        let message = format!("{} results wait for the PACS: {trouble}", standing.waiting);
        let advice =
            "See that the PACS runs and knows this box; `roentgend doctor --config FILE` tries it. They are kept.";
        problems.push(Problem::warning("results_waiting", message, advice));
    }
    if standing.refused > 0 {
        let why = standing.refusal.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
        let message = format!("The PACS does not take {} results{why}.", standing.refused);
        let advice = "They lie in state_dir/results/refused and are offered again once a day, and at once after `systemctl reload \
             roentgend` with a changed section or a restart; delete those that it shall not have.";
        problems.push(Problem::warning("results_refused", message, advice));
    }
    if standing.dropped_at.is_some_and(|at| now.saturating_duration_since(at) < LOSS) {
        let message = format!("{} results were dropped before the PACS had them.", standing.dropped);
        let advice = "The PACS was away for too long: mend that, or raise the bounds of [dicom_results].";
        problems.push(Problem::warning("results_dropped", message, advice));
    }
}

/// What judges.
fn model(state: &State, problems: &mut Vec<Problem>) {
    if let Some(fallback) = state.setup.as_ref().and_then(|setup| setup.fallback.as_ref()) {
        let message = format!("The box does not run the bundle {}: {}", fallback.wanted, fallback.reason);
        let advice = "Install a good bundle, or go back for good with `roentgend bundle rollback`.";
        problems.push(Problem::warning("bundle_fallback", message, advice));
    }
    if let Some(fallback) = state.setup.as_ref().and_then(|setup| setup.backend_fallback.as_ref()) {
        let message = format!("The backend {} does not judge, another one does: {}", fallback.wanted, fallback.reason);
        let advice = "See that the accelerator is plugged in and its driver installed; it is tried again by itself. To do \
                      without it write backend = \"native\".";
        problems.push(Problem::warning("backend_fallback", message, advice));
    }
    if let Some(reason) = state.reload.as_ref().and_then(|reload| reload.refused.as_ref()) {
        let message = format!("The new configuration was refused, the old one goes on: {reason}");
        let advice = "Correct it (`roentgend doctor --config FILE`) and reload: systemctl reload roentgend";
        problems.push(Problem::warning("reload_refused", message, advice));
    }
}

/// A span of time as people say it.
pub(super) fn spoken(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Fallback;
    use crate::classifier::Running;
    use crate::report::ModelIdentity;
    use crate::sink::dicom_sr::Standing;
    use crate::status::{Broker, Intake, QueueDepth, Setup, Status};

    fn setup() -> Setup {
        Setup {
            device: "box-t".into(),
            model: ModelIdentity { name: "tiny".into(), version: "1.0.0".into(), sha256: "ab".into() },
            bundle: "/".into(),
            fallback: None,
            backend: "native".into(),
            kernel: "portable".into(),
            threads: 1,
            backend_fallback: None,
            state_dir: "/".into(),
            incoming: "/".into(),
        }
    }

    /// The problems' codes some time from now, worst first.
    fn codes(status: &Status, later: u64) -> (bool, Vec<String>) {
        let health = Health::of(&status.lock(), Instant::now() + Duration::from_secs(later));
        assert!(health.problems.iter().all(|problem| !problem.message.is_empty() && !problem.advice.is_empty()));
        (health.healthy, health.problems.into_iter().map(|problem| problem.code).collect())
    }

    fn broker(connected: bool) -> Broker {
        Broker { connected, connections: 1, version: None, error: Some("refused".into()) }
    }

    #[test]
    fn a_box_is_healthy_once_it_runs_and_while_it_turns() {
        let status = Status::default();
        assert_eq!(codes(&status, 0), (false, vec!["starting".into()]));
        status.running(setup());
        assert_eq!(codes(&status, 0), (true, vec![]));
        status.turn();
        assert_eq!(codes(&status, 100), (true, vec![]));
        assert_eq!(codes(&status, 200), (false, vec!["line_stalled".into()]));
        status.intake(Intake::Closed { reason: "the disk is full".into() });
        assert_eq!(codes(&status, 0), (false, vec!["intake_closed".into()]));
        status.intake(Intake::Open);
        assert_eq!(codes(&status, 0), (true, vec![]));
    }

    #[test]
    fn a_broker_away_is_a_warning_until_reports_wait_for_long() {
        let status = Status::default();
        status.running(setup());
        status.broker(broker(false));
        assert_eq!(codes(&status, 30), (true, vec![]));
        assert_eq!(codes(&status, 90), (true, vec!["broker_away".into()]));
        assert_eq!(codes(&status, 9000), (true, vec!["broker_away".into()]), "nothing waits");
        status.queue(QueueDepth { unsent: 3, ..QueueDepth::default() });
        assert_eq!(codes(&status, 9000), (false, vec!["broker_away".into()]));
        status.broker(broker(true));
        assert_eq!(codes(&status, 100), (true, vec![]), "it is just back");
        assert_eq!(codes(&status, 200), (false, vec!["drain_stuck".into()]));
        status.published(1);
        assert_eq!(codes(&status, 100), (true, vec![]));
        status.queue(QueueDepth::default());
        assert_eq!(codes(&status, 9000), (true, vec![]));
    }

    #[test]
    fn a_backend_that_does_not_judge_is_warned_of_until_it_does() {
        let status = Status::default();
        let running = |fallback: Option<&str>| Running {
            backend: "native".into(),
            kernel: "portable".into(),
            threads: 1,
            fallback: fallback.map(|reason| Fallback { wanted: "edgetpu".into(), reason: reason.into() }),
        };
        status.runs(running(Some("nothing runs yet")));
        status.running(setup());
        let before = status.urgent();
        status.runs(running(None));
        assert_eq!(status.urgent(), before, "it is what was set up");
        status.runs(running(Some("unplugged")));
        assert_eq!((status.urgent(), codes(&status, 0)), (before + 1, (true, vec!["backend_fallback".into()])));
        status.runs(running(Some("unplugged")));
        assert_eq!(status.urgent(), before + 1);
        status.runs(running(None));
        assert_eq!(codes(&status, 0), (true, vec![]));
    }

    #[test]
    fn a_camera_that_is_away_fails_and_a_film_that_cannot_be_read_is_a_warning() {
        let status = Status::default();
        status.running(setup());
        let urgent = status.urgent();
        let fine = crate::status::Camera::default();
        status.camera(Some(fine.clone()));
        assert_eq!((codes(&status, 0), status.urgent()), ((true, vec![]), urgent + 1));
        status.camera(Some(crate::status::Camera { films: 7, ..fine.clone() }));
        assert_eq!(status.urgent(), urgent + 1);
        status.camera(Some(crate::status::Camera { complaint: Some("blurred".into()), ..fine.clone() }));
        assert_eq!(codes(&status, 0), (true, vec!["film_unusable".into()]));
        let unfit = crate::status::Camera { reference_unfit: Some("another camera".into()), ..fine.clone() };
        status.camera(Some(unfit));
        assert_eq!(codes(&status, 0), (true, vec!["reference_unfit".into()]));
        status.camera(Some(crate::status::Camera { away: Some("camera: unplugged".into()), ..fine }));
        assert_eq!((codes(&status, 0), status.urgent()), ((false, vec!["camera_away".into()]), urgent + 4));
        status.camera(None);
        assert_eq!(codes(&status, 0), (true, vec![]));
    }

    #[test]
    fn losses_and_second_choices_are_warned_of_and_the_worst_stands_first() {
        let status = Status::default();
        let fallback = Fallback { wanted: "tiny-2".into(), reason: "damaged".into() };
        status.running(Setup { fallback: Some(fallback), ..setup() });
        status.dropped(0);
        assert_eq!(codes(&status, 0), (true, vec!["bundle_fallback".into()]));
        status.dropped(4);
        status.outbox_set_aside("outbox.sqlite3 was broken");
        status.reloaded(Err("line 3".into()));
        assert_eq!(
            codes(&status, 0),
            (true, ["reports_dropped", "outbox_set_aside", "bundle_fallback", "reload_refused"].map(Into::into).into())
        );
        status.reloaded(Ok(()));
        status.intake(Intake::Closed { reason: "no room".into() });
        let (healthy, found) = codes(&status, 25 * 3600);
        assert_eq!((healthy, found[0].as_str()), (false, "intake_closed"));
        assert!(!found.contains(&"reports_dropped".into()), "a day is over");
    }

    #[test]
    fn results_that_do_not_reach_the_pacs_are_warned_of() {
        let status = Status::default();
        status.running(setup());
        let away = Standing { waiting: 3, trouble: Some(("refused".into(), Instant::now())), ..Standing::default() };
        status.results(Some(away));
        assert_eq!(codes(&status, 30), (true, vec![]));
        assert_eq!(codes(&status, 90), (true, vec!["results_waiting".into()]));
        let before = status.urgent();
        let refused =
            Standing { refused: 1, dropped: 2, dropped_at: Some(Instant::now()), news: 1, ..Standing::default() };
        status.results(Some(refused));
        assert!(status.urgent() > before);
        assert_eq!(codes(&status, 90), (true, ["results_refused", "results_dropped"].map(Into::into).into()));
        assert_eq!(codes(&status, 25 * 3600).1, ["results_refused"]);
        status.results(None);
        assert_eq!(codes(&status, 90), (true, vec![]));
    }

    #[test]
    fn what_matters_is_urgent_and_what_is_told_again_is_not() {
        let status = Status::default();
        let mut before = status.urgent();
        let mut is_news = || std::mem::replace(&mut before, status.urgent()) != status.urgent();
        status.turn();
        status.intake(Intake::Open);
        status.dropped(0);
        assert!(!is_news());
        status.intake(Intake::Closed { reason: "full".into() });
        assert!(is_news());
        status.intake(Intake::Closed { reason: "full".into() });
        assert!(!is_news());
        status.dropped(1);
        assert!(is_news());
    }

    #[test]
    fn spans_are_spoken_in_units_that_people_use() {
        let spans = [(5, "5 s"), (119, "119 s"), (180, "3 min"), (7200, "2 h"), (3 * 86_400, "3 days")];
        for (seconds, text) in spans {
            assert_eq!(spoken(Duration::from_secs(seconds)), text);
        }
    }
}
