//! `ringfence rules test`: what became of the tests inside rule files.

use std::fmt::Write as _;
use std::process::ExitCode;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};
use serde_json::{Value as Json, json};

use super::event;
use super::visible;
use crate::alert::json_visible;
use crate::cli::failure::FOUND_WRONG;
use crate::cli::rules_command::RuleFiles;
use crate::cli::{Failure, TestFormat, emit, lint};
use crate::rules::{Diagnostic, LoadError, Reason, RuleReport, RuleSet, Severity, TestOutcome, TestReport};

/// Runs the tests and prints what became of them.
pub(in crate::cli) fn run(
    files: &RuleFiles,
    complete: bool,
    output: TestFormat,
) -> Result<ExitCode, Failure> {
    let set = match files.load() {
        Ok(set) => set,
        Err(error) => {
            // Who reads a report from standard output gets one; what people read is on standard error.
            match output {
                TestFormat::Text => {}
                TestFormat::Json => emit(&unloaded_json(&error))?,
                TestFormat::Junit => emit(&unloaded_junit(&error))?,
            }
            return Err(Failure::from(error).found_wrong());
        }
    };
    let report = set.run_tests();
    let gaps = if complete { gaps(&set) } else { Vec::new() };
    emit(&match output {
        TestFormat::Text => text(&report, &gaps),
        TestFormat::Json => json(&report, &gaps),
        TestFormat::Junit => junit(&report, &gaps),
    })?;
    let good = report.passed() && gaps.is_empty();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(FOUND_WRONG) })
}

/// A rule and what its tests do not show.
type Gap = (String, &'static str);

/// What the rules' tests leave open.
pub(super) fn gaps(set: &RuleSet) -> Vec<Gap> {
    let mut open = Vec::new();
    for rule in set.rules() {
        let gaps = rule.gaps();
        if gaps.no_match {
            open.push((rule.id.clone(), "no test shows an event that it matches"));
        }
        if gaps.no_near_miss {
            open.push((rule.id.clone(), "no test shows a near miss"));
        }
    }
    open
}

/// What went wrong with a test, in a line.
fn verdict(test: &TestOutcome) -> String {
    let count = test.reasons.len();
    let noun = if count == 1 { "sub-condition" } else { "sub-conditions" };
    match (test.matched, count) {
        (true, 0) => "must not match, but does".to_owned(),
        (true, _) => format!("must not match, but does; {count} {noun} made it:"),
        (false, 0) => "must match, but does not".to_owned(),
        (false, _) => format!("must match, but does not; nearest miss: {count} {noun} stood in the way:"),
    }
}

/// A sub-condition that decided, with its values, in lines of at most 110 columns where values allow it.
pub(super) fn reason_lines(reason: &Reason<'_>, indent: &str) -> Vec<String> {
    let values: Vec<String> = reason
        .values
        .iter()
        .map(|(name, value)| format!("{}={}", visible(name), event::shown(value)))
        .collect();
    let head = format!("{indent}{:5}  {}", reason.holds, visible(&reason.condition));
    super::explain::with_values(head, &format!("{indent}         "), &values)
}

pub(super) fn text(report: &TestReport, gaps: &[Gap]) -> String {
    let mut text = String::new();
    let width = report.rules.iter().map(|rule| visible(&rule.id).chars().count()).max().unwrap_or(0);
    for rule in report.rules.iter().filter(|rule| !rule.tests.is_empty()) {
        let failed = rule.tests.iter().filter(|test| !test.passed()).count();
        let state = if failed == 0 { "passed" } else { "FAILED" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{state}  {:width$}  {}", visible(&rule.id), count(rule.tests.len(), "test"));
        for test in rule.tests.iter().filter(|test| !test.passed()) {
            let _ = writeln!(
                text,
                "  {}:{}:{}: {}",
                visible(&test.file),
                test.line,
                test.column,
                visible(&test.name)
            );
            let _ = writeln!(text, "    {}", verdict(test));
            for line in test.reasons.iter().flat_map(|reason| reason_lines(reason, "      ")) {
                let _ = writeln!(text, "{line}");
            }
        }
    }
    for rule in report.untested() {
        let _ = writeln!(text, "no test {}", visible(&rule.id));
    }
    for (id, gap) in gaps {
        let _ = writeln!(text, "FAILED  {:width$}  {gap}", visible(id));
    }
    text + &summary(report) + "\n"
}

fn summary(report: &TestReport) -> String {
    let failed = report.failures().count();
    let (rules, tests) = (count(report.rules.len(), "rule"), count(report.count(), "test"));
    let untested = count(report.untested().count(), "rule");
    format!(
        "{rules}, {tests}: {} passed, {failed} failed; {untested} without a test",
        report.count() - failed
    )
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

pub(super) fn json(report: &TestReport, gaps: &[Gap]) -> String {
    let test = |test: &TestOutcome| {
        json!({
            "name": test.name,
            "file": &*test.file,
            "line": test.line,
            "column": test.column,
            "passed": test.passed(),
            "expected": test.expected,
            "matched": test.matched,
            "reasons": test.reasons.iter().map(reason_json).collect::<Json>(),
        })
    };
    let rule = |rule: &RuleReport| {
        let gaps = gaps.iter().filter(|(id, _)| *id == rule.id).map(|(_, gap)| *gap);
        json!({
            "id": rule.id,
            "name": rule.name,
            "tests": rule.tests.iter().map(test).collect::<Json>(),
            "gaps": gaps.collect::<Json>(),
        })
    };
    let failed = report.failures().count();
    let whole = json!({
        "errors": [],
        "rules": report.rules.iter().map(rule).collect::<Json>(),
        "tests": report.count(),
        "passed": report.count() - failed,
        "failed": failed,
        "untested": report.untested().map(|rule| Json::from(rule.id.as_str())).collect::<Json>(),
    });
    json_visible(&format!("{whole:#}")) + "\n"
}

/// Why the rules could not be loaded, in the form of a report without tests.
pub(super) fn unloaded_json(error: &LoadError) -> String {
    let errors: Json = errors(error).map(|error| lint::as_json("error", error)).collect();
    let whole =
        json!({ "errors": errors, "rules": [], "tests": 0, "passed": 0, "failed": 0, "untested": [] });
    json_visible(&format!("{whole:#}")) + "\n"
}

/// What hinders loading; the warnings beside it are for people.
fn errors(error: &LoadError) -> impl Iterator<Item = &Diagnostic> {
    error.diagnostics().iter().filter(|found| found.severity() == Severity::Error)
}

/// A sub-condition that decided, for programs.
pub(super) fn reason_json(reason: &Reason<'_>) -> Json {
    let values = reason.values.iter().map(|(name, value)| (name.to_string(), event::json(value)));
    json!({ "condition": &*reason.condition, "holds": reason.holds, "values": Json::Object(values.collect()) })
}

/// JUnit's XML: a suite for each rule, a case for each test; a rule without one has a suite without cases.
pub(super) fn junit(report: &TestReport, gaps: &[Gap]) -> String {
    xml(|writer| junit_to(writer, report, gaps))
}

/// The same form for rules that could not be loaded: a suite with an erroneous case for each mistake.
pub(super) fn unloaded_junit(error: &LoadError) -> String {
    xml(|writer| unloaded_to(writer, error))
}

fn xml(write: impl FnOnce(&mut Writer<Vec<u8>>) -> std::io::Result<()>) -> String {
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    match write(&mut writer) {
        Ok(()) => String::from_utf8_lossy(&writer.into_inner()).into_owned() + "\n",
        // Only a writer can fail, and a Vec does not.
        Err(error) => format!("<!-- {error} -->\n"),
    }
}

fn unloaded_to(writer: &mut Writer<Vec<u8>>, error: &LoadError) -> std::io::Result<()> {
    let number = errors(error).count().to_string();
    let counts = [("tests", number.as_str()), ("failures", "0"), ("errors", &number)];
    let named = |name: &'static str| [&[("name", name)], counts.as_slice()].concat();
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    writer.write_event(Event::Start(element("testsuites", &named("ringfence rules test"))))?;
    writer.write_event(Event::Start(element("testsuite", &named("loading"))))?;
    for error in errors(error) {
        let (file, message) = (error.file_name(), error.message());
        let place = error.line_column();
        let line = place.map(|(line, _)| line.to_string());
        let name = match place {
            Some((line, column)) => format!("{file}:{line}:{column}"),
            None => file.to_owned(),
        };
        let mut names = vec![("name", name.as_str()), ("classname", "loading"), ("file", file)];
        names.extend(line.as_deref().map(|line| ("line", line)));
        case(writer, &names, Some(Outcome { kind: "error", message, body: &error.render(false) }))?;
    }
    writer.write_event(Event::End(BytesEnd::new("testsuite")))?;
    writer.write_event(Event::End(BytesEnd::new("testsuites")))
}

fn junit_to(writer: &mut Writer<Vec<u8>>, report: &TestReport, gaps: &[Gap]) -> std::io::Result<()> {
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let failures = report.failures().count() + gaps.len();
    let all = element(
        "testsuites",
        &[
            ("name", "ringfence rules test"),
            ("tests", &(report.count() + gaps.len()).to_string()),
            ("failures", &failures.to_string()),
            ("errors", "0"),
        ],
    );
    writer.write_event(Event::Start(all))?;
    for rule in &report.rules {
        let gaps: Vec<&str> = gaps.iter().filter(|(id, _)| *id == rule.id).map(|(_, gap)| *gap).collect();
        let failures = rule.tests.iter().filter(|test| !test.passed()).count() + gaps.len();
        let suite = element(
            "testsuite",
            &[
                ("name", &rule.id),
                ("tests", &(rule.tests.len() + gaps.len()).to_string()),
                ("failures", &failures.to_string()),
                ("errors", "0"),
            ],
        );
        writer.write_event(Event::Start(suite))?;
        for test in &rule.tests {
            let line = test.line.to_string();
            let names = [
                ("name", test.name.as_str()),
                ("classname", &rule.id),
                ("file", &test.file),
                ("line", &line),
            ];
            let lines: Vec<String> =
                test.reasons.iter().flat_map(|reason| reason_lines(reason, "")).collect();
            let body = format!("{}:{}:{}\n{}", test.file, test.line, test.column, lines.join("\n"));
            let verdict = verdict(test);
            let failure = Outcome { kind: "failure", message: &verdict, body: &body };
            case(writer, &names, (!test.passed()).then_some(failure))?;
        }
        for gap in gaps {
            let failure = Outcome { kind: "failure", message: gap, body: "" };
            case(writer, &[("name", gap), ("classname", &rule.id)], Some(failure))?;
        }
        writer.write_event(Event::End(BytesEnd::new("testsuite")))?;
    }
    writer.write_event(Event::End(BytesEnd::new("testsuites")))
}

/// What went wrong with a case.
struct Outcome<'o> {
    /// `failure`, or `error` if it could not be tried.
    kind: &'static str,
    message: &'o str,
    body: &'o str,
}

fn case(
    writer: &mut Writer<Vec<u8>>,
    names: &[(&str, &str)],
    wrong: Option<Outcome<'_>>,
) -> std::io::Result<()> {
    let element_of_case = element("testcase", names);
    let Some(Outcome { kind, message, body }) = wrong else {
        return writer.write_event(Event::Empty(element_of_case));
    };
    writer.write_event(Event::Start(element_of_case))?;
    writer.write_event(Event::Start(element(kind, &[("message", message)])))?;
    writer.write_event(Event::Text(BytesText::new(&clean(body))))?;
    writer.write_event(Event::End(BytesEnd::new(kind)))?;
    writer.write_event(Event::End(BytesEnd::new("testcase")))
}

fn element<'n>(name: &'n str, attributes: &[(&str, &str)]) -> BytesStart<'n> {
    let mut element = BytesStart::new(name);
    for (key, value) in attributes {
        element.push_attribute((*key, visible(&clean(value)).as_str()));
    }
    element
}

/// XML has no place for most control characters, not even escaped, nor for two that are none.
fn clean(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(visible).collect();
    lines.join("\n").replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}
