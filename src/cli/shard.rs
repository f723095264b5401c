//! `--shard`: which shard this process checks, from the option or from the variables of Kubernetes or Slurm.

use std::fmt;
use std::str::FromStr;

use super::{Error, Result};
use crate::config::Environment;
use crate::domain::shards::Shard;

/// The value of `--shard`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardArg {
    /// From the variables of a job engine.
    Auto,
    Given(Shard),
}

impl FromStr for ShardArg {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Given).map_err(|error| format!("{error}, or auto")) }
    }
}

impl ShardArg {
    /// The shard. `of` is the value of `--shards`.
    pub fn shard(self, of: Option<u32>, environment: &Environment) -> Result<Shard> {
        match (self, of) {
            (Self::Given(shard), Some(of)) if shard.of() != of => {
                Err(Error::usage(format!("--shard {shard} and --shards {of} name different numbers of shards")))
            }
            (Self::Given(shard), _) => Ok(shard),
            (Self::Auto, of) => auto(&|name| environment.vars.get(name)?.to_str(), of).map_err(Error::usage),
        }
    }
}

/// The shard that a job engine gives this process in its variables.
///
/// Sources: Kubernetes, "Indexed completion mode" of the page on jobs; Slurm, "Job Array Support" in its documentation.
fn auto<'a>(variable: &dyn Fn(&str) -> Option<&'a str>, of: Option<u32>) -> std::result::Result<Shard, String> {
    let number = |name: &str| -> std::result::Result<Option<u32>, String> {
        let text = variable(name).map(str::trim).filter(|text| !text.is_empty());
        text.map(|text| text.parse().map_err(|_| format!("{name} is {text:?}, which is not a number"))).transpose()
    };
    let shard = |name: &dyn fmt::Display, number: u32, of: u32| {
        Shard::new(number, of)
            .ok_or_else(|| format!("{name} makes this shard {number} of {of}, which does not exist: correct the number of shards"))
    };
    if let Some(text) = variable("CBR_SHARD") {
        let shard = text.parse::<Shard>().map_err(|error| format!("CBR_SHARD: {error}"))?;
        return if of.is_none_or(|of| of == shard.of()) {
            Ok(shard)
        } else {
            Err("CBR_SHARD and --shards name different numbers of shards".to_owned())
        };
    }
    if let Some(index) = number("JOB_COMPLETION_INDEX")? {
        let of =
            of.ok_or("JOB_COMPLETION_INDEX does not say how many shards there are: name the completions of the job with --shards N")?;
        return shard(&format_args!("JOB_COMPLETION_INDEX={index}, which counts from 0,"), index.saturating_add(1), of);
    }
    let Some(task) = number("SLURM_ARRAY_TASK_ID")? else {
        return Err(
            "--shard auto finds neither CBR_SHARD nor JOB_COMPLETION_INDEX (Kubernetes) nor SLURM_ARRAY_TASK_ID (Slurm): use --shard K/N"
                .to_owned(),
        );
    };
    if let Some(of) = of {
        return shard(&format_args!("SLURM_ARRAY_TASK_ID={task}, which with --shards counts from 1,"), task, of);
    }
    let [count, least, most] = ["COUNT", "MIN", "MAX"].map(|name| number(&format!("SLURM_ARRAY_TASK_{name}")));
    let (Some(count), Some(least), Some(most)) = (count?, least?, most?) else {
        return Err("SLURM_ARRAY_TASK_COUNT is not set: name the number of shards with --shards N".to_owned());
    };
    // A part of an array, such as shards that run again, does not show how many there are.
    if least > 1 || most.checked_sub(least).and_then(|more| more.checked_add(1)) != Some(count) {
        let array = format!("{count} tasks from {least} to {most}");
        return Err(format!("the Slurm array has {array}, which does not show how many shards there are: name them with --shards N"));
    }
    shard(&format_args!("SLURM_ARRAY_TASK_ID={task}"), task.saturating_sub(least).saturating_add(1), count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shard for these variables, or the error.
    fn found(variables: &str, of: Option<u32>) -> String {
        let pairs: Vec<(&str, &str)> = variables.split_whitespace().filter_map(|pair| pair.split_once('=')).collect();
        let variable = |name: &str| pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1);
        auto(&variable, of).map_or_else(|error| error, |shard| shard.to_string())
    }

    const SLURM: &str = "SLURM_ARRAY_TASK_COUNT=8 SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_MAX=8";

    #[test]
    fn kubernetes_counts_from_0_and_needs_the_number_of_shards() {
        assert_eq!(found("JOB_COMPLETION_INDEX=0", Some(8)), "1/8");
        assert_eq!(found("JOB_COMPLETION_INDEX=7", Some(8)), "8/8");
        assert!(found("JOB_COMPLETION_INDEX=8", Some(8)).contains("makes this shard 9 of 8, which does not exist"));
        assert!(found("JOB_COMPLETION_INDEX=0", None).contains("with --shards N"));
        assert!(found("JOB_COMPLETION_INDEX=x", Some(8)).contains("not a number"));
    }

    #[test]
    fn a_slurm_array_counts_from_0_or_1() {
        assert_eq!(found(&format!("{SLURM} SLURM_ARRAY_TASK_ID=3"), None), "3/8");
        let from_0 = "SLURM_ARRAY_TASK_COUNT=8 SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_MAX=7";
        assert_eq!(found(&format!("{from_0} SLURM_ARRAY_TASK_ID=3"), None), "4/8");
    }

    #[test]
    fn a_part_of_a_slurm_array_needs_the_number_of_shards() {
        let two = "SLURM_ARRAY_TASK_COUNT=2 SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_MAX=5 SLURM_ARRAY_TASK_ID=5";
        assert_eq!(found(two, Some(8)), "5/8");
        assert!(found(two, None).contains("2 tasks from 1 to 5, which does not show"));
        let rest = "SLURM_ARRAY_TASK_COUNT=3 SLURM_ARRAY_TASK_MIN=3 SLURM_ARRAY_TASK_MAX=5 SLURM_ARRAY_TASK_ID=4";
        assert!(found(rest, None).contains("3 tasks from 3 to 5"));
        assert!(found("SLURM_ARRAY_TASK_ID=0", Some(8)).contains("counts from 1"));
    }

    #[test]
    fn cbr_shard_wins_and_nothing_at_all_is_an_error() {
        assert_eq!(found(&format!("CBR_SHARD=2/5 JOB_COMPLETION_INDEX=0 {SLURM}"), None), "2/5");
        assert!(found("CBR_SHARD=2/5", Some(8)).contains("different numbers of shards"));
        assert!(found("CBR_SHARD=6/5", None).contains("CBR_SHARD: \"6/5\" is not a shard"));
        assert!(found("SLURM_ARRAY_TASK_COUNT=8", None).contains("use --shard K/N"));
    }
}
