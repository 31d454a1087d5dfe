# Everything runs in .venv, which each target creates and fills when it is missing or
# older than setup.cfg and pyproject.toml.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
SUPPORTED := 3.11
VENV := .venv
RUNS ?= runs
FASHION ?= /usr/share/datasets/fashion-mnist
PYTEST := $(VENV)/bin/python -m pytest -n 2 --dist loadfile

.PHONY: train test test-slow lint fashion clean

train: $(VENV)/train.stamp  ## Train, evaluate, export and check on real scans of digits.
	$(VENV)/bin/python -m train --recipe=digits --workdir=$(RUNS)/digits
	@echo; echo "Its twin with batch normalization:"
	$(VENV)/bin/python -m train --recipe=digits_bn --workdir=$(RUNS)/digits_bn
	@echo
	$(VENV)/bin/python -m train.report $(RUNS)/digits $(RUNS)/digits_bn --svm

test: lint $(VENV)/test.stamp  ## Tests of at most ten minutes.
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/test.stamp  ## The others; reaches PyPI to install the wheel.
	$(PYTEST) -m slow --durations=10

lint: $(VENV)/test.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

fashion: $(VENV)/train.stamp  ## Fashion-MNIST, AN and BN: about 20 minutes on two cores.
	$(VENV)/bin/python -m train --recipe=fashion_mnist_resnet20_an \
	    --data=idx:$(FASHION) --workdir=$(RUNS)/fashion_an
	$(VENV)/bin/python -m train --recipe=fashion_mnist_resnet20_bn \
	    --data=idx:$(FASHION) --workdir=$(RUNS)/fashion_bn
	$(VENV)/bin/python -m train.report $(RUNS)/fashion_an $(RUNS)/fashion_bn

$(VENV)/%.stamp: setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no python3 found. Expected Python $(SUPPORTED)." >&2; exit 1; }
	@version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	 case " $(SUPPORTED) " in *" $$version "*) ;; *) \
	 echo "error: unsupported Python. Expected: $(SUPPORTED). Received: $$version ($(PYTHON)). Use make PYTHON=/path/to/python." >&2; exit 1;; esac; \
	 test "$$($(VENV)/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$$version" \
	 || $(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$(subst test,train$(comma)test,$*)]"
	@touch $@

comma := ,

clean:
	rm -rf $(VENV) build dist *.egg-info
