import sys
from pathlib import Path

# The scripted chat server stands beside the tests of the client.
sys.path.append(str(Path(__file__).parents[1] / "datagen"))
