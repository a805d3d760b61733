"""Build programs: from a folder of Python to a component that the sandbox runs. Start reading at `build`."""

from bakehouse.inferlets.bakery.build import Built, build, check
from bakehouse.inferlets.bakery.problems import BadProject, BuildFailed, Problem
from bakehouse.inferlets.bakery.project import Project, entry_of, read_project
from bakehouse.inferlets.bakery.template import create

__all__ = [
    "BadProject",
    "BuildFailed",
    "Built",
    "Problem",
    "Project",
    "build",
    "check",
    "create",
    "entry_of",
    "read_project",
]
