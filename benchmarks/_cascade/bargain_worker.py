"""The peer's side: BARGAIN_A on recorded outcomes, many jobs in one process; reads and writes JSON files.

    python -m benchmarks._cascade.bargain_worker JOBS ANSWERS

A job is {"sure": [...], "enough": [...], "target": t, "delta": d, "seed": s}, per record how sure the proxy is and
whether its answer is at least as good as the oracle's. The answer is, per record, whether BARGAIN used the oracle.
"""

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np


def stubbed(name: str, *members: str) -> None:
    """Stand in for a client that BARGAIN imports and recorded outcomes do not need, where it is not installed."""
    try:
        __import__(name)
    except ImportError:
        module = types.ModuleType(name)
        for member in members:
            setattr(module, member, type(member, (), {}))
        sys.modules[name] = module


def answered(job: dict[str, Any]) -> list[bool]:
    from BARGAIN import BARGAIN_A, Oracle, Proxy  # type: ignore[import-not-found]

    sure, enough = job["sure"], job["enough"]

    class RecordedProxy(Proxy):  # type: ignore[misc]
        def proxy_func(self, record: str) -> tuple[str, float]:
            return "proxy", sure[int(record)]

    class RecordedOracle(Oracle):  # type: ignore[misc]
        def oracle_func(self, record: str, proxy_output: str) -> tuple[bool, str]:
            right = bool(enough[int(record)])
            return right, proxy_output if right else "oracle"

    method = BARGAIN_A(
        RecordedProxy(verbose=False, max_workers=1),
        RecordedOracle(verbose=False, max_workers=1),
        target=job["target"],
        delta=job["delta"],
        seed=job["seed"],
        verbose=False,
    )
    records = [str(number) for number in range(len(sure))]
    _, used = method.process(records, return_oracle_usage=True)
    return [bool(one) for one in used]


def main() -> None:
    stubbed("openai", "OpenAI")
    stubbed("pandas")
    jobs = json.loads(Path(sys.argv[1]).read_text())
    np.seterr(all="ignore")
    Path(sys.argv[2]).write_text(json.dumps([answered(job) for job in jobs]))


if __name__ == "__main__":
    main()
