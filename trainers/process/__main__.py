"""`python -m trainers.process JOB.json`."""

import sys

from trainers.process.trl import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
