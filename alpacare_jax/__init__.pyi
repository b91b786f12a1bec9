"""The public names; each is imported from its module when it is first used."""

from alpacare_jax.convert.folders import export_adapters as export_adapters
from alpacare_jax.convert.folders import export_model as export_model
from alpacare_jax.convert.folders import import_model as import_model
from alpacare_jax.data.dataset import PackedDataset as PackedDataset
from alpacare_jax.data.pack import pack as pack
from alpacare_jax.evaluate.heldout_file import evaluate as evaluate
from alpacare_jax.evaluate.judge import JudgeSettings as JudgeSettings
from alpacare_jax.evaluate.judging import judge as judge
from alpacare_jax.evaluate.tables import score as score
from alpacare_jax.inference import generate as generate
from alpacare_jax.inference import serve as serve
from alpacare_jax.language_model import LanguageModel as LanguageModel
from alpacare_jax.language_model import load as load
from alpacare_jax.model import ComputeConfig as Compute
from alpacare_jax.optim import OptimConfig as Optim
from alpacare_jax.plan.planning import compare_plans as compare_plans
from alpacare_jax.plan.planning import plan as plan
from alpacare_jax.report.writing import report as report
from alpacare_jax.sharding import MeshConfig as Mesh
from alpacare_jax.train import LoRA as LoRA
from alpacare_jax.train import TrainConfig as TrainConfig
from alpacare_jax.train import Trainer as Trainer
from alpacare_jax.train import callbacks as callbacks
from alpacare_jax.train import load_config as load_config

__version__: str
