"""The tables that stand beside Optuna's, and the view for people.

They refer to Optuna's trials, and go when a trial goes, whoever deletes it.
"""

from typing import Any, Final

import sqlalchemy
from optuna.storages._rdb import models
from sqlalchemy import Column, DateTime, Float, ForeignKey, Integer, LargeBinary, MetaData, String, Table
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

from storage.errors import StorageError

TRIALS: Final[Any] = models.TrialModel.__table__
METADATA: Final = MetaData()
VERSION: Final = 3
"""Of these tables; raised with each change that an earlier program could not live with."""


def _trial_column(**options: Any) -> Column[int]:
    return Column("trial_id", ForeignKey(TRIALS.c.trial_id, ondelete="CASCADE"), **options)


VERSIONS: Final = Table("cnn_search_version", METADATA, Column("version", Integer, primary_key=True))
FILES: Final = Table(
    "cnn_search_files",
    METADATA,
    Column("artifact_id", String(64), primary_key=True),
    # Neither is known of a file that another program stores through Optuna.
    _trial_column(nullable=True),
    Column("kind", String(16), nullable=True),
    Column("size_bytes", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
    # Empty where the bytes are kept outside the database.
    Column("content", LargeBinary, nullable=True),
    # A trial has one file of each kind.
    sqlalchemy.UniqueConstraint("trial_id", "kind"),
)
"""Every stored file: what it belongs to, its size and digest, and its bytes."""
LOOSE_FILES: Final = Table(
    "cnn_search_loose_files",
    METADATA,
    Column("artifact_id", String(64), primary_key=True),
    Column("study_id", Integer, nullable=False, index=True),
    # Who is about to write and name them; empty for those that are named no longer.
    Column("worker", String(32), nullable=False),
)
"""Bytes outside the database that `FILES` does not name yet, or no longer; see `storage.loose_files`."""
WORKERS: Final = Table(
    "cnn_search_workers",
    METADATA,
    Column("worker", String(32), primary_key=True),
    Column("study_id", Integer, nullable=False, index=True),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    # Tells a process from a later one of the same number; see `storage.process`.
    Column("place", String(255), nullable=False),
    Column("born", String(64), nullable=False),
    Column("gpu", String(255), nullable=True),
    # Seconds since the epoch by the database's clock, so that no worker's clock matters.
    Column("started", Float(53), nullable=False),
    Column("expires", Float(53), nullable=False),
)
"""Worker processes, and until when their leases hold."""
LEASES: Final = Table(
    "cnn_search_leases",
    METADATA,
    _trial_column(primary_key=True, autoincrement=False),
    Column("study_id", Integer, nullable=False, index=True),
    Column("worker", String(32), nullable=False, index=True),
    Column("since", Float(53), nullable=False),
)
"""Which worker runs a trial. Without a row here, a worker writes nothing to its trial."""

# The value of the best trial is that of its highest value, the earlier of equals.
BEST_TRIAL: Final = """
CREATE VIEW best_trial AS
SELECT study, trial_number, value, recipe, model_file_id, size_bytes, sha256 FROM (
    SELECT studies.study_name AS study, trials.number AS trial_number, trial_values.value AS value,
        recipes.value_json AS recipe, files.artifact_id AS model_file_id, files.size_bytes AS size_bytes,
        files.sha256 AS sha256,
        ROW_NUMBER() OVER (
            PARTITION BY studies.study_id ORDER BY trial_values.value DESC, trials.number
        ) AS place
    FROM trials
    JOIN studies ON studies.study_id = trials.study_id
    JOIN trial_values ON trial_values.trial_id = trials.trial_id AND trial_values.objective = 0
    JOIN cnn_search_files AS files ON files.trial_id = trials.trial_id AND files.kind = 'model'
    LEFT JOIN trial_user_attributes AS recipes
        ON recipes.trial_id = trials.trial_id AND recipes.key = 'recipe'
    WHERE trials.state = 'COMPLETE'
) AS ranked
WHERE place = 1
"""
"""A row for each study that has a complete trial with a model."""

# SQLite enforces no foreign keys for clients that do not ask for it, and Optuna's tools do not.
SQLITE_CLEAN_UP: Final = [
    f"CREATE TRIGGER {table}_of_deleted_trials AFTER DELETE ON trials "
    f"BEGIN DELETE FROM {table} WHERE trial_id = OLD.trial_id; END"
    for table in ("cnn_search_files", "cnn_search_leases")
]


class ServerNow(FunctionElement[float]):
    """Seconds since the epoch by the database's own clock, at this statement."""

    type = Float(53)
    inherit_cache = True


@compiles(ServerNow, "sqlite")
def _sqlite_now(*_: object, **__: object) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(ServerNow, "postgresql")
def _postgresql_now(*_: object, **__: object) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


def has_schema(engine: sqlalchemy.Engine) -> bool:
    """Whether the tables are there.

    Raises:
        StorageError: An earlier or later version of this project made them.
    """
    names = set(sqlalchemy.inspect(engine).get_table_names())
    if FILES.name not in names:
        return False
    version = None
    if VERSIONS.name in names:
        with engine.connect() as connection:
            version = connection.scalar(sqlalchemy.select(VERSIONS.c.version))
    if version not in (None, VERSION) or VERSIONS.name not in names:
        raise StorageError(
            f"its tables are of version {version or 1} of cnn-search's schema, this program's is {VERSION}; "
            "name a new database, or use the version that made this one"
        )
    return version is not None


def create_schema(engine: sqlalchemy.Engine) -> None:
    """Create tables and view in a database that has Optuna's; one process at a time.

    The version is written last: without it, an earlier attempt died half way, and is made up for here.
    """
    # SQLite commits each table by itself; one without versions beside it would pass for an earlier program's.
    VERSIONS.create(engine, checkfirst=True)
    METADATA.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP VIEW IF EXISTS best_trial"))
        connection.execute(sqlalchemy.text(BEST_TRIAL))
        if engine.dialect.name == "sqlite":
            for statement in SQLITE_CLEAN_UP:
                connection.execute(sqlalchemy.text(statement.replace("TRIGGER", "TRIGGER IF NOT EXISTS", 1)))
        connection.execute(sqlalchemy.delete(VERSIONS))
        connection.execute(sqlalchemy.insert(VERSIONS).values(version=VERSION))
