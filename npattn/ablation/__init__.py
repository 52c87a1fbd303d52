"""What does each part do? Variants of the demo's network trained over several seeds: `npattn ablate`.

variants    what is trained
trainings   how: each one is kept when it is finished, and never repeated
report      the table and the figure
"""

from npattn.ablation.report import summarised, table
from npattn.ablation.trainings import ablate
from npattn.ablation.variants import VARIANTS, AblationError, Settings, Variant

__all__ = ["VARIANTS", "AblationError", "Settings", "Variant", "ablate", "summarised", "table"]
