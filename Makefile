# Everything runs in .venv. Each target creates and fills it if it is missing, has an
# unsupported Python version or another one than PYTHON, or is older than setup.cfg and
# pyproject.toml.

SUPPORTED := 3.11 3.12 3.13
VENV := .venv
RUNS ?= runs
FASHION ?= /usr/share/datasets/fashion-mnist

version = $(shell $(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
CANDIDATES := $(or $(PYTHON),$(addprefix python,$(SUPPORTED)) python3 python)
ACCEPTED := $(if $(PYTHON),$(call version,$(PYTHON)),$(SUPPORTED))
PYTHON ?= $(firstword $(foreach p,$(CANDIDATES),$(if $(filter $(SUPPORTED),$(call version,$(p))),$(p))))
PYTHON_VERSION := $(if $(PYTHON),$(call version,$(PYTHON)))
OTHER_PYTHONS = $(foreach v,$(filter-out $(PYTHON_VERSION),$(SUPPORTED)),$(if $(call version,python$(v)),python$(v)))
VENV_VERSION := $(call version,$(VENV)/bin/python)
PYTEST := $(VENV)/bin/python -m pytest -n 2 --dist loadfile
OLDEST_KERAS := $(shell sed -n 's/^ *keras>=//p' setup.cfg)
EXTRAS_train := train
EXTRAS_test := train,export,test
EXTRAS_backends := train,export,test,backends
EXTRAS_docs := docs

.PHONY: train test test-slow test-long test-backends test-keras test-pythons test-part test-kills conversion serving litert lint docs fashion scenes detection detection-transfer sweep imagenet-smoke clean python venv

train: $(VENV)/train.stamp  ## Train on real scans of digits, evaluate, export and check the export.
	$(VENV)/bin/python -m train --recipe=digits --workdir=$(RUNS)/digits
	@echo; echo "Its twin with batch normalization:"
	$(VENV)/bin/python -m train --recipe=digits_bn --workdir=$(RUNS)/digits_bn
	@echo
	$(VENV)/bin/python -m train.report $(RUNS)/digits $(RUNS)/digits_bn --svm \
	    --csv=$(RUNS)/digits.csv

test: lint  ## The quick tests.
	$(PYTEST) -m "not slow and not long"

test-slow: $(VENV)/test.stamp  ## The slow tests; needs PyPI to install the wheel.
	$(PYTEST) -m slow --durations=10 --dist worksteal tests/train tests/examples
	$(MAKE) $(VENV)/backends.stamp  # not before: TensorFlow imports JAX where it can
	$(PYTEST) -m slow --durations=10 --dist worksteal \
	    --ignore=tests/train --ignore=tests/examples
	$(MAKE) test-backends

test-long: $(VENV)/backends.stamp  ## The largest networks and more cases, before a release.
	$(PYTEST) -m long --durations=10 --dist worksteal

test-backends: $(VENV)/backends.stamp  ## The layer's tests on JAX and PyTorch.
	@for backend in jax torch; do \
	    echo "KERAS_BACKEND=$$backend"; \
	    KERAS_BACKEND=$$backend JAX_ENABLE_X64=1 JAX_DISABLE_MOST_OPTIMIZATIONS=1 \
	        JAX_COMPILATION_CACHE_DIR=$(CURDIR)/$(VENV)/jax \
	        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 \
	        JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1 \
	        $(PYTEST) --dist worksteal tests/an_keras || exit 1; \
	done
	KERAS_BACKEND=jax $(PYTEST) -o addopts=--import-mode=importlib tests/an_keras_on_jax

test-keras: $(VENV)/test.stamp  ## The layer and the zoo on the oldest and the newest Keras allowed.
	@for keras in keras==$(OLDEST_KERAS).0 keras; do \
	    echo "$$keras"; rm -rf $(VENV)/keras; \
	    $(VENV)/bin/python -m pip install --quiet --no-deps --target $(VENV)/keras "$$keras" && \
	    PYTHONPATH=$(CURDIR)/$(VENV)/keras $(PYTEST) -m "not slow and not long" \
	        tests/an_keras tests/an_keras_on_tensorflow tests/model_zoo || exit 1; \
	done

test-pythons:  ## A part of the quick tests on the other supported Pythons on PATH.
	@for python in $(OTHER_PYTHONS); do \
	    echo "$$python"; \
	    $(MAKE) PYTHON=$$python VENV=$(VENV)-$$python test-part || exit 1; \
	done

test-part: $(VENV)/test.stamp
	$(PYTEST) -m "not slow and not long" tests/an_keras tests/train/test_main.py \
	    tests/train/export/test_runtimes.py

test-kills: $(VENV)/test.stamp  ## Kills runs and exports twenty times at random moments.
	$(PYTEST) -s -m "slow or long" tests/train/test_main.py tests/train/export/test_write.py \
	    -k killed --kills=20

conversion: $(VENV)/test.stamp  ## Converts all 38 networks of Keras Applications; writes a table.
	PYTHONPATH=. $(VENV)/bin/python tests/model_zoo/conversion.py $(RUNS)/conversion.csv

serving: $(VENV)/test.stamp  ## Exports of six networks in every runtime; writes two tables and a plot.
	PYTHONPATH=. $(VENV)/bin/python tests/consumers.py $(RUNS)/serving $(RUNS)/consumers.csv
	$(VENV)/bin/python -m train.benchmark serve $(RUNS)/serving/*/float32/1 --rounds=100 \
	    --csv=$(RUNS)/serve.csv --plot=$(RUNS)/serve.png

litert: $(VENV)/test.stamp  ## MobileNetV2-AN on Fashion-MNIST, in LiteRT at lower precision.
	$(VENV)/bin/python -m train --recipe=fashion_mnist_resnet20_an --data=idx:$(FASHION) \
	    --set=model.name=mobilenetv2_an --set="model.options={'width_multiplier': 0.5}" \
	    --set=data.image_size=32 --set=data.shift=2 --set=epochs=10 \
	    --set=optimizer.warmup_epochs=1 --workdir=$(RUNS)/fashion_mobilenetv2
	for kind in float16 dynamic; do \
	    out=$(RUNS)/fashion_mobilenetv2_$$kind; rm -rf $$out; \
	    $(VENV)/bin/python -m train.export --workdir=$(RUNS)/fashion_mobilenetv2 \
	        --out=$$out --format=litert --quantize=$$kind && \
	    $(VENV)/bin/python -m train.serve_check $$out/* && \
	    ls -l $$out/*/model.tflite || exit 1; \
	done

lint: $(VENV)/test.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports

docs: $(VENV)/docs.stamp  ## The site of docs/, in site/; fails on broken links.
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict
	@echo "To read it: python -m http.server --directory site"

fashion: $(VENV)/train.stamp  ## Fashion-MNIST with AN and BN; takes ten minutes on two cores.
	$(VENV)/bin/python -m train --recipe=fashion_mnist_resnet20_an \
	    --data=idx:$(FASHION) --workdir=$(RUNS)/fashion_an
	$(VENV)/bin/python -m train --recipe=fashion_mnist_resnet20_bn \
	    --data=idx:$(FASHION) --workdir=$(RUNS)/fashion_bn
	$(VENV)/bin/python -m train.report $(RUNS)/fashion_an $(RUNS)/fashion_bn \
	    --csv=$(RUNS)/fashion.csv

SCENES := runs/detection
CLOTHES := --recipe=fashion_mnist_resnet20_an --data=idx:$(FASHION) \
    --classes='Trouser,Sandal,Sneaker,Bag,Ankle boot'
DIGITS := --classes=0,1,2,3,4
ITEMS := $(if $(wildcard $(FASHION)),$(CLOTHES),$(DIGITS))

scenes: $(VENV)/train.stamp  ## Scenes with masks, and their records.
	[ -f $(SCENES)/scenes/annotations/instances_val2017.json ] || { \
	    rm -rf $(SCENES)/scenes; $(VENV)/bin/python -m train.detection.scenes $(ITEMS) \
	    --train=24000 --val=200 --out=$(SCENES)/scenes; }
	$(VENV)/bin/python -m train.detection.prepare --coco=$(SCENES)/scenes --out=$(SCENES)/records

detection: scenes  ## Mask R-CNN on scenes: train, evaluate, export, draw; half an hour on two cores.
	$(VENV)/bin/python -m train.detection --experiment=an_maskrcnn_scenes \
	    --model_dir=$(SCENES)/model
	[ -d $(SCENES)/model/export/3000 ] || \
	    $(VENV)/bin/python -m train.detection.export --model_dir=$(SCENES)/model
	rm -rf $(SCENES)/pictures
	$(VENV)/bin/python -m train.detection.predict $(SCENES)/model/export/3000 \
	    $(SCENES)/scenes/val2017/00000?.jpg --out=$(SCENES)/pictures

detection-transfer:  ## Detectors from scratch and from classifiers of Fashion-MNIST; an hour and a half on two cores.
	@[ -d $(FASHION) ] || { echo "error: Expected Fashion-MNIST in FASHION=DIR." \
	    "Received: $(FASHION), which is no directory." >&2; exit 1; }
	$(MAKE) scenes
	$(VENV)/bin/python -m experiments.transfer --records=$(SCENES)/records \
	    --data=idx:$(FASHION) --out=$(RUNS)/transfer

STAMPS := $(addprefix $(VENV)/,train.stamp test.stamp backends.stamp docs.stamp)
REBUILD := $(if $(filter $(ACCEPTED),$(VENV_VERSION)),,venv)
$(STAMPS): $(VENV)/%.stamp: setup.cfg pyproject.toml $(REBUILD) | python
	$(VENV)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check \
	    -e ".[$(EXTRAS_$*)]"
	@touch $@

venv: python
	$(PYTHON) -m venv --clear $(VENV)

# Words with commas in between. A "|" becomes a space.
comma := ,
listed = $(subst |, ,$(subst $() ,$(comma) ,$(1)))
others = $(strip $(foreach p,$(CANDIDATES),$(patsubst %,Python|%|($(p)),$(call version,$(p)))))

python:
ifeq ($(filter $(SUPPORTED),$(PYTHON_VERSION) $(if $(REBUILD),,$(VENV_VERSION))),)
	@echo "error: unsupported Python. Expected: $(call listed,$(SUPPORTED)). Received:" \
	    "$(call listed,$(or $(others),no|$(CANDIDATES)|on|PATH))." \
	    "Use make PYTHON=/path/to/python." >&2; exit 1
endif

imagenet-smoke: $(VENV)/train.stamp  ## Rehearses the training on ImageNet with made-up images.
	PYTHONPATH=. $(VENV)/bin/python tests/imagenet_smoke.py $(RUNS)/imagenet_smoke

sweep: $(VENV)/train.stamp  ## AN and BN on digits with three seeds; takes five minutes; writes a page.
	$(VENV)/bin/python -m train.sweep --recipe=digits,digits_bn --seed=0,1,2 \
	    --workdir=$(RUNS)/sweep --processes=2
	$(VENV)/bin/python -m train.report $(RUNS)/sweep --html=$(RUNS)/sweep/report.html \
	    $(addprefix --corruption=,gaussian_noise defocus_blur fog contrast jpeg_compression)

clean:
	rm -rf $(VENV) $(VENV)-* build dist site *.egg-info
