//! A trace of accesses as damo, the tool of DAMON's users, keeps what it recorded.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::{Value as Json, json};
use trapline_model::access::damon::{Damon, Region, Snapshot};
use trapline_model::{Facts, Header, Item, Sink, Value};

/// Between two rounds, if the trace does not say, nanoseconds.
const PERIOD_NS: u64 = 1_000_000;

/// Writes a record as damo's form `json_compressed` at the end: a list with an object for each process, compressed by
/// zlib. (damo tells forms by what the `file` command says, which of plain JSON differs from version to version.)
#[derive(Debug)]
pub struct Damo<W> {
    out: W,
    window_ns: u64,
    damon: Option<Damon>,
    targets: Vec<(u32, Vec<Snapshot>)>,
    period_ns: u64,
    /// When the last access was.
    last_ns: u64,
}

impl<W: Write> Damo<W> {
    /// Over a writer, with a snapshot for each such time.
    pub fn new(out: W, window_ns: u64) -> Self {
        Self { out, window_ns, damon: None, targets: vec![], period_ns: PERIOD_NS, last_ns: 0 }
    }

    fn header(&mut self, header: &Header) {
        let every = header.setting("every_ns");
        if let Some(&Value::U64(every_ns)) = every {
            self.period_ns = every_ns;
        }
        self.damon = Some(Damon::new(self.window_ns, header.start_ns, self.period_ns));
    }

    /// The snapshots end then, if they have not ended.
    fn finish(&mut self, time_ns: u64) {
        if let Some(damon) = self.damon.take() {
            self.targets = damon.finish(time_ns);
        }
    }

    /// The list of records.
    fn write(&mut self, end: Option<&Facts>) -> io::Result<()> {
        let reached = end.and_then(|end| end.get("period_ns")).filter(|n| *n > 0);
        let sample_us = (reached.unwrap_or(self.period_ns) / 1000).max(1);
        let intervals =
            json!({"sample_us": sample_us, "aggr_us": self.window_ns / 1000, "ops_update_us": 1_000_000});
        let mut out = ZlibEncoder::new(&mut self.out, Compression::default());
        write!(out, "[")?;
        for (n, (pid, snapshots)) in self.targets.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            write!(
                out,
                "{comma}{{\"kdamond_idx\":0,\"context_idx\":0,\"intervals\":{intervals},\"scheme_idx\":null,\
                 \"target_id\":{pid},\"scheme_filters\":[],\"snapshots\":["
            )?;
            for (n, snapshot) in snapshots.iter().enumerate() {
                write!(out, "{}{}", if n > 0 { "," } else { "" }, object(snapshot))?;
            }
            write!(out, "]}}")?;
        }
        write!(out, "]")?;
        out.finish()?;
        Ok(())
    }
}

fn object(snapshot: &Snapshot) -> Json {
    let region = |r: &Region| {
        json!({
            "start": r.start,
            "end": r.end,
            "nr_accesses": {"samples": r.accesses, "percent": null},
            "age": {"usec": null, "aggr_intervals": r.age},
        })
    };
    json!({
        "start_time": snapshot.start_ns,
        "end_time": snapshot.end_ns,
        "regions": snapshot.regions.iter().map(region).collect::<Vec<_>>(),
        "total_bytes": snapshot.regions.iter().map(|r| r.end - r.start).sum::<u64>(),
    })
}

impl<W: Write> Sink for Damo<W> {
    fn take(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Header(header) => self.header(header),
            Item::Events(events) => {
                self.last_ns = events.last().map_or(self.last_ns, |event| event.time_ns);
                if let Some(damon) = &mut self.damon {
                    damon.take(events);
                }
            }
            Item::Rows(_) | Item::Facts(_) | Item::Tick(_) => {}
            Item::Totals(block) => self.finish(block.time_ns),
            Item::End(end) => {
                self.finish(self.last_ns);
                self.write(Some(end))?;
            }
        }
        self.out.flush()
    }

    fn cut_off(&mut self) -> io::Result<()> {
        self.finish(self.last_ns);
        self.write(None)?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::ZlibDecoder;
    use trapline_model::Block;
    use trapline_model::access::{Page, REACHED, Reached, SETTINGS, Settings, Step, TOTAL, Way, What};

    use super::*;

    #[test]
    fn a_list_with_an_object_for_each_process() {
        let access = |pid, ms: u64| {
            let page = Page {
                way: Some(Way::Write),
                ip: None,
                addr: 0x5008,
                file: None,
                offset: None,
                symbol: None,
                first: false,
            };
            let (time_ns, tid, comm) = (ms * 1_000_000, pid, String::new());
            let what = What::Access;
            Step { time_ns, what, pid, tid, comm, cpu: None, page: Some(page), note: None }.event()
        };
        let header = Header {
            tool: "access".into(),
            variant: "kprobe".into(),
            version: "0".into(),
            settings: vec![SETTINGS.record(&Settings { every_ns: 2_000_000, ..Settings::default() })],
            ..Header::default()
        };
        let more = vec![REACHED.record(&Reached { period_ns: 2_500_000, ..Reached::default() })];
        let mut out = Vec::new();
        let mut sink = Damo::new(&mut out, 100_000_000);
        for item in [
            Item::Header(header),
            Item::Events(vec![access(7, 5), access(7, 60), access(9, 170)]),
            Item::Totals(Block::new(TOTAL, 200_000_000, vec![])),
            Item::End(Facts {
                duration_ns: 0,
                events: 3,
                lost_events: 0,
                sampled: 1,
                own_cpu_ns: Some(0),
                more,
            }),
        ] {
            sink.take(&item).unwrap();
        }
        let mut text = String::new();
        ZlibDecoder::new(out.as_slice()).read_to_string(&mut text).unwrap();
        let records: Json = serde_json::from_str(&text).unwrap();
        let ids: Vec<_> = records.as_array().unwrap().iter().map(|record| &record["target_id"]).collect();
        assert_eq!(ids, [7, 9]);
        assert_eq!(
            records[0]["intervals"],
            json!({"sample_us": 2500, "aggr_us": 100_000, "ops_update_us": 1_000_000})
        );
        let snapshots = records[0]["snapshots"].as_array().unwrap();
        assert_eq!(snapshots.len(), 2);
        assert_eq!(
            (&snapshots[1]["start_time"], &snapshots[1]["end_time"]),
            (&100_000_000.into(), &200_000_000.into())
        );
        let region = &snapshots[0]["regions"][0];
        assert_eq!((&region["start"], &region["end"]), (&0x5000.into(), &0x6000.into()));
        assert_eq!(
            (&region["nr_accesses"]["samples"], &region["age"]["aggr_intervals"]),
            (&2.into(), &0.into())
        );
        assert_eq!(snapshots[1]["regions"][0]["nr_accesses"]["samples"], 0);
        assert_eq!(records[1]["snapshots"].as_array().unwrap().len(), 1);
    }
}
