"""What does each part do? The demo's network with one thing changed, trained over several seeds: `npattn ablate`.

rows        what is trained: every block there is, and what they are compared with
record      what is kept of each training, and what is asked of it before it is believed
trainings   how: each one is kept when it is finished, and never repeated
report      the table and the figure
"""

from npattn.ablation.report import summarised, table
from npattn.ablation.rows import AblationError, Row, Settings, rows
from npattn.ablation.trainings import ablate

__all__ = ["AblationError", "Row", "Settings", "ablate", "rows", "summarised", "table"]
