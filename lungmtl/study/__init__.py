"""Study: settings, plan, runs and records; composes all other rooms."""

from lungmtl.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "attention": ["Look", "look", "look_at", "marked", "positive_scans", "table_of"],
        "collection": ["FLOW_FILE", "READINGS_FILE", "Collection", "collect", "read_scans", "write_scans"],
        "config": ["RunConfig", "read_params"],
        "execute": ["execute_notebook"],
        "machine": ["environment"],
        "outlook": ["outlook"],
        "parameters": ["check_injected"],
        "pilot": ["run_pilot"],
        "plan": ["plan"],
        "record": ["read_model", "read_record", "write_run"],
        "run": [
            *("Cohort", "Evaluated", "LoadedRun", "Trained", "check_name", "configure", "datasets", "evaluate"),
            *("gather", "load_run", "new_network", "train", "weighting_policy", "write_record"),
        ],
        "runner": ["NOTE_FILE", "PAGE_FILE", "compare_runs", "execute_run", "mend"],
        "workflow": ["STARTED", "progress_bar", "run_study"],
    },
)
