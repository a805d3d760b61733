from pathlib import Path
from tests.launch.support import ECHO, bench
from bakehouse.core.task import TaskStatus as S

async def test_a_cold_call_passes_every_state_and_a_warm_one_runs_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        app = b.app(ECHO)
        cold = b.call(app, text="one")
        assert (await cold.output())["text"] == "one"
        assert cold.statuses == [S.PREPARING, S.SERVING, S.SETTING_UP, S.RUNNING]
        warm = b.call(app, text="two")
        assert (await warm.output())["text"] == "two"
        assert warm.statuses == [S.RUNNING]
