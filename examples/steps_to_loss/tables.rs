//! The tables of docs/steps-to-loss.md, from the records.

use super::Result;
use super::record::{Run, SEEDS, Sample, Stored, best, taken};
use super::study;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// The rule that the others are compared with.
const BASE: &str = "AdamW";
/// How many times the least steps of a rule a rate may take to count as good.
const GOOD: f64 = 1.5;

/// The tables by name: each stands in the document between two comments with its name.
pub fn all(runs: &[Run], of_digits: &[Stored], of_text: &[Stored]) -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("steps", steps(runs)?),
        ("rates", rates(runs)?),
        ("good", good(runs)?),
        ("unrest", unrest(runs)?),
        ("formats of digits", formats(of_digits)?),
        ("formats of text", formats(of_text)?),
    ])
}

/// The document with these tables in place of those it has.
pub fn put(document: &str, tables: &[(&str, String)]) -> Result<String> {
    let mut text = document.to_owned();
    for (name, table) in tables {
        let [begin, end] = ["begin", "end"].map(|what| format!("<!-- {name}: {what} -->\n"));
        let (head, rest) = text.split_once(&begin).ok_or_else(|| format!("no line {begin}"))?;
        let (_, tail) = rest.split_once(&end).ok_or_else(|| format!("no line {end}"))?;
        text = format!("{head}{begin}\n{table}\n{end}{tail}");
    }
    Ok(text)
}

/// The two-sided p-value of Welch's test that the means of two samples are equal (Welch 1947).
pub fn welch(a: Sample, b: Sample) -> Result<f64> {
    let [of_a, of_b] = [a, b].map(|sample| sample.sd * sample.sd / sample.count);
    let t = (a.mean - b.mean) / (of_a + of_b).sqrt();
    let freedom = (of_a + of_b).powi(2) / (of_a * of_a / (a.count - 1.0) + of_b * of_b / (b.count - 1.0));
    Ok(2.0 * StudentsT::new(0.0, 1.0, freedom)?.cdf(-t.abs()))
}

/// Every rule at its rate, the soonest first.
fn steps(runs: &[Run]) -> Result<String> {
    let base = Sample::of(&taken(runs, BASE, best(runs, BASE)?));
    let mut rows = Vec::new();
    for entry in study::entries()? {
        let lr = best(runs, &entry.name)?;
        let taken = taken(runs, &entry.name, lr);
        let (all, sample) = (SEEDS.count(), Sample::of(&taken));
        let numbers = match &entry.name[..] {
            // The mean of those that reach the loss says nothing of the rule.
            _ if taken.len() < all => format!("{} of {all} | | | ", taken.len()),
            BASE => format!("{:.0} | {:.0} | 1 | ", sample.mean, sample.sd),
            _ => {
                let (ratio, p) = (sample.mean / base.mean, short(welch(sample, base)?));
                format!("{:.0} | {:.0} | {ratio:.2} | {p}", sample.mean, sample.sd)
            }
        };
        let row = format!("| {} | {lr} | {numbers} |\n", entry.name);
        rows.push((all - taken.len(), sample.mean, row));
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let rows: String = rows.into_iter().map(|(.., row)| row).collect();
    Ok(format!("| rule | rate | mean steps | sd | of {BASE}'s | p |\n|---|---|---|---|---|---|\n{rows}"))
}

fn short(p: f64) -> String {
    if p < 0.001 { format!("{p:.0e}") } else { format!("{p:.3}") }
}

/// The names of the rules that the eight seeds take every rate with.
pub fn at_every_rate() -> Result<Vec<String>> {
    Ok(study::entries()?.into_iter().filter(|entry| entry.every_rate).map(|entry| entry.name).collect())
}

/// A table with a line for each rate, and a column for each of these rules.
fn by_rate(names: &[String], cell: impl Fn(&str, f64) -> String) -> String {
    let head = format!("| rate | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    let row = |lr: f64| {
        let cells: Vec<_> = names.iter().map(|name| cell(name, lr)).collect();
        format!("| {lr} | {} |\n", cells.join(" | "))
    };
    head + &study::rates().into_iter().map(row).collect::<String>()
}

/// The mean steps of rules at every rate.
fn rates(runs: &[Run]) -> Result<String> {
    Ok(by_rate(&at_every_rate()?, |name, lr| {
        let (taken, all) = (taken(runs, name, lr), SEEDS.count());
        match taken.len() {
            0 => "none".into(),
            some if some < all => format!("{some} of {all}"),
            _ => format!("{:.0}", Sample::of(&taken).mean),
        }
    }))
}

/// The rates at which all seeds reach the loss, and those whose mean is near a rule's least.
fn good(runs: &[Run]) -> Result<String> {
    let mut rows = String::new();
    for name in at_every_rate()? {
        let mean = |lr: f64| {
            let taken = taken(runs, &name, lr);
            (taken.len() == SEEDS.count()).then(|| (lr, Sample::of(&taken).mean))
        };
        let means: Vec<_> = study::rates().into_iter().filter_map(mean).collect();
        let least = means.iter().map(|(_, mean)| *mean).fold(f64::INFINITY, f64::min);
        let span = |keep: &dyn Fn(f64) -> bool| {
            let rates: Vec<_> = means.iter().filter(|(_, mean)| keep(*mean)).map(|(lr, _)| *lr).collect();
            match (rates.first(), rates.last()) {
                (Some(first), Some(last)) => format!("{first} to {last} | {:.1}", (last / first).log10()),
                _ => "none | ".into(),
            }
        };
        rows += &format!("| {name} | {least:.0} | {} | {} |\n", span(&|_| true), span(&|mean| mean <= GOOD * least));
    }
    Ok(format!(
        "| rule | least mean | all seeds reach it | decades | within {GOOD} of the least | decades |\n\
         |---|---|---|---|---|---|\n{rows}"
    ))
}

/// Loss and unrest at the end with Lookahead and without.
fn unrest(runs: &[Run]) -> Result<String> {
    let round = "Lookahead round ";
    let names: Vec<_> = at_every_rate()?;
    let pairs = names.iter().filter_map(|wrapped| {
        let inner = wrapped.strip_prefix(round)?;
        Some([names.iter().find(|name| name.starts_with(inner))?.clone(), wrapped.clone()])
    });
    Ok(by_rate(&pairs.flatten().collect::<Vec<_>>(), |name, lr| {
        let of = |run: &&Run| run.name == name && run.lr == lr && SEEDS.contains(&run.seed);
        let runs: Vec<_> = runs.iter().filter(of).collect();
        let mean =
            |number: fn(&Run) -> f32| Sample::of(&runs.iter().map(|run| number(run).into()).collect::<Vec<_>>()).mean;
        match (mean(|run| run.loss), mean(|run| run.unrest)) {
            (loss, unrest) if loss.is_finite() && unrest.is_finite() => format!("{loss:.3} ± {unrest:.4}"),
            _ => "diverges".into(),
        }
    }))
}

/// Every way to store: its losses, and how far they are from f32's of the same seeds.
fn formats(stored: &[Stored]) -> Result<String> {
    let storages = study::storages()?;
    let losses = |name: &str, of: fn(&Stored) -> f32| -> Vec<f64> {
        stored.iter().filter(|stored| stored.name == name).map(|stored| of(stored).into()).collect()
    };
    let base = storages.first().ok_or("formats.json is empty")?;
    let mut rows = String::new();
    for storage in &storages {
        rows += &format!("| {} |", storage.name);
        for of in [(|stored| stored.train) as fn(&Stored) -> f32, |stored| stored.test] {
            let [own, base] = [&storage.name, &base.name].map(|name| losses(name, of));
            let ratios: Vec<_> = own.iter().zip(&base).map(|(own, base)| 100.0 * (own / base - 1.0)).collect();
            let (own, sample, ratios) = (Sample::of(&own), Sample::of(&base), Sample::of(&ratios));
            let share = (1e4 * (own.mean / sample.mean - 1.0)).round() / 100.0 + 0.0; // no -0
            rows += &format!(" {:.5} | {share:+.2} % | {:.2} |", own.mean, ratios.sd);
        }
        rows += "\n";
    }
    Ok(format!(
        "| storage | training loss | of f32's | sd | test loss | of f32's | sd |\n\
         |---|---|---|---|---|---|---|\n{rows}"
    ))
}
