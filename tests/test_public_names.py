"""Names and options that users rely on: what goes, or is new, changes this file, too."""

import contextlib
import importlib
import io
import re

import pytest
from lightning.pytorch.cli import LightningCLI

import lightning_modules
from cli.commands import convert
from cli.errors import accepted_options
from cli.main import COMMANDS, RUNS, main
from cli.run.cli import SpikingCLI

NAMES = {
    "spiking": """
        CLIF Differential EnergyReport ExpGCode ExpGIF ExpGQuant FiringRateMonitor GLIF IF KLIF LIF
        LMH LMHT Levels MaskedPSN MultiThreshold Neuron OperationCounter PLIF PSN SlidingPSN
        StepNeuron Tracking camera check_finite codes compress_spikes encode get_neuron get_surrogate
        keep_memory layers list_neurons list_surrogates multi_threshold profile_energy register_neuron
        streaming
    """,
    "conversion": """
        CalibrationError ConversionError ConvertedModel Method Report UnsupportedOperationError
        bypassed calibrate convert cos dcgs ecmt energy get_method list_methods lmht parallel
        prepare qcfs rebuild register_method resize self_test srp thresholds
    """,
    "zoo": """
        AnalogModel CheckpointError Description ExportError Exported Fit FluctuationChoice HubError
        HubFileNotFoundError ImageClassifier LicenceError Metric NotRebuildableError Provenance Published
        Scorer SpikingModel Task TokenBlock TokenImportance Transform UnknownModelError UnrecognizedError
        WeightsCfg ZooModel build_model checkpoint_block choose_fluctuation_weight create describe
        export get_task
        import_checkpoint is_registered list_models list_tasks load normalize_name push
        read_checkpoint recognize reduce_tokens register_model register_task resize save task_of
        token_importance transform
    """,
    "lightning_modules": """
        AccuracyOverTime AgreementOverTime AutoencoderTask BaseTask ClassificationTask Comparison
        CompressSpikes ConversionTask DiDATask Energy FiringRate ImageTokenizerTask
        LatentDiffusionTask MultiLabelTask
        NextTokenTask Point ProxyTargetTask RasterFigure RegressionTask ResumableState RunReport
        SegmentationTask ShortcutTask
        SpikeReconstructionTask TokenMaps compare
        mean_logit_loss tet_loss
    """,
    "datamodules": """
        ArrayDataModule ArrayDataset Arrays Augmentation BaseDataModule CIFAR100DataModule
        CIFAR10DVSDataModule CIFAR10DataModule CaptionedDigitsDataModule CaptionedMNIST5kDataModule
        ChangePairsDataModule
        ClassificationDataModule ControlDataModule DVSGestureDataModule DataError DatasetDataModule
        DigitCanvasDataModule DigitsDataModule
        EpochLoader EvalSampler EventDataModule EventFolderDataModule EventPipeline
        FashionMNISTDataModule HuggingFaceDataModule
        ImageDataset ImageFolderDataModule ImageNetDataModule ImagePipeline
        MNIST5kDataModule MNIST5kEventsDataModule
        MadeUpSpeechDataModule NMNISTDataModule Recording ReplayBuffer
        RoadsDataModule SHDDataModule SSCDataModule ShapesDataModule SpikeSceneDataModule
        SyntheticCitiesDataModule SyntheticDataModule SyntheticSpikeSceneDataModule TensorPipeline
        TinyImageNetDataModule TokenRowsDataModule TrainSampler Transitions stratified_split
    """,
}
OPTIONS = {  # without those of Lightning's Trainer
    "fit": """
        --checkpoint_every_n_steps --ckpt_path --config --data --data.help --explain --help --logger --logger+
        --model --model.help --name --output --print_config --report --seed_everything --tensorboard
        --test_after_fit --top_k --trainer --weights_only -c -h
    """,
    "validate": """
        --checkpoint_every_n_steps --ckpt_path --config --data --data.help --explain --help --logger --logger+
        --model --model.help --name --output --print_config --report --seed_everything --tensorboard
        --test_after_fit --top_k --trainer --verbose --weights_only -c -h
    """,
    "test": """
        --checkpoint_every_n_steps --ckpt_path --config --data --data.help --explain --help --logger --logger+
        --model --model.help --name --output --print_config --report --seed_everything --tensorboard
        --test_after_fit --top_k --trainer --verbose --weights_only -c -h
    """,
    "predict": """
        --checkpoint_every_n_steps --ckpt_path --config --data --data.help --explain --help --logger --logger+
        --model --model.help --name --output --print_config --report --return_predictions --seed_everything
        --tensorboard --test_after_fit --top_k --trainer --weights_only -c -h
    """,
    "convert": """
        --calibration --calibration.help --config --data --data.help --energy_batches --evaluate_at
        --evaluate_at+ --help --method --method_args --output --print_config --report --seed_everything
        --source --source.model --source.model_args --source.pretrained --source.weights
        --time_steps -c -h
    """,
    "configs": """
        --copy --help -h
    """,
    "models": """
        --family --help --macs --max-params --paper --pretrained --task -h
    """,
    "publish": """
        --dry-run --help --licence --limits --message --private --repo-id --revision --token-from -h
    """,
    "import": """
        --arg --as --help --in-chans --licence --num-classes --output --time-steps --url -h
    """,
    "info": """
        --help -h
    """,
    "compare": """
        --help --output -h
    """,
    "export": """
        --help --output --sequence --step --time-steps --to -h
    """,
    "demo": """
        --help --no-browser --port -h
    """,
    "stream": """
        --camera-like --check --chunk --events --every --frame-events --frame-ms --help --repeat
        --sensor-size --split-by -h
    """,
}
TASK_OPTIONS = {
    "ClassificationTask": """
        channels_last class_weights cosine_after_warmup cutmix decay_all in_chans label_smoothing
        loss lr min_lr mixup mixup_off_epoch mixup_prob mixup_switch_prob model model_args momentum
        num_classes optimizer schedule schedule_interval tet_lambda tet_phi token_reduction
        warmup_epochs warmup_lr weight_decay
    """,
    "RegressionTask": """
        channels_last cosine_after_warmup decay_all in_chans loss lr min_lr model model_args momentum
        num_outputs optimizer schedule schedule_interval warmup_epochs warmup_lr weight_decay
    """,
    "MultiLabelTask": """
        channels_last cosine_after_warmup decay_all in_chans lr min_lr model model_args momentum
        num_classes optimizer schedule schedule_interval threshold warmup_epochs warmup_lr weight_decay
    """,
    "SegmentationTask": """
        channels_last cosine_after_warmup decay_all ignore_index in_chans lr min_lr model model_args
        momentum num_classes optimizer schedule schedule_interval warmup_epochs warmup_lr weight_decay
    """,
    "ShortcutTask": """
        channels_last class_weights combine cosine_after_warmup cutmix decay_all evolve in_chans
        label_smoothing lambda0 loss lr min_lr mixup mixup_off_epoch mixup_prob mixup_switch_prob
        model model_args momentum num_classes optimizer schedule schedule_interval tet_lambda
        tet_phi token_reduction update warmup_epochs warmup_lr weight_decay
    """,
    "ConversionTask": """
        calibration channels_last class_weights cosine_after_warmup cutmix decay_all in_chans
        input_size label_smoothing loss lr method method_args min_lr mixup mixup_off_epoch
        mixup_prob mixup_switch_prob model model_args momentum num_classes optimizer schedule
        schedule_interval source tet_lambda tet_phi time_steps token_reduction warmup_epochs
        warmup_lr weight_decay
    """,
    "AutoencoderTask": """
        channels cosine_after_warmup decay_all lr min_lr momentum optimizer perceptual schedule
        schedule_interval warmup_epochs warmup_lr weight_decay
    """,
    "LatentDiffusionTask": """
        autoencoder building cosine_after_warmup decay_all dropout grad_checkpointing guidance lr
        min_lr model model_args momentum optimizer rescale sampler sampling_steps schedule
        schedule_interval snr_gamma text_encoder unet warmup_epochs warmup_lr weight_decay
    """,
    "SpikeReconstructionTask": """
        background binning brightness degree_every densification flip knots_every mode model
        model_args multi_reblur opacity rates scale virtual_views
    """,
}


class Parsers(SpikingCLI):
    """Builds the parsers of all subcommands, and stops."""

    def setup_parser(self, *args, **kwargs):
        super().setup_parser(*args, **kwargs)
        raise Built(self._subcommand_parsers)


class Built(Exception):
    pass


def strings(parser) -> set[str]:
    return {text for action in parser._actions for text in action.option_strings}


@pytest.fixture(scope="module")
def parsers() -> dict:
    try:
        Parsers([])
    except Built as built:
        return {**built.args[0], "convert": convert._parser()}


def printed(command: str) -> set[str]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main([command, "--help"])
    listed = re.findall(r"^  (-.*?)(?:  |$)", out.getvalue(), re.M)  # an example below them names others
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", " ".join(listed)))


@pytest.mark.parametrize("package", NAMES)
def test_names_of_a_package(package):
    module = importlib.import_module(package)
    assert sorted(module.__all__) == NAMES[package].split()
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_commands():
    assert list(COMMANDS) == list(OPTIONS)


@pytest.mark.parametrize("command", OPTIONS)
def test_options_of_a_command(command, parsers):
    found = strings(parsers[command]) if command in parsers else printed(command)
    assert sorted(s for s in found if not s.startswith("--trainer.")) == OPTIONS[command].split()


@pytest.mark.parametrize("task", TASK_OPTIONS)
def test_options_of_a_task(task):
    assert sorted(accepted_options(getattr(lightning_modules, task))) == TASK_OPTIONS[task].split()


def test_the_command_line_overrides_no_private_hook_of_lightning():
    assert set(RUNS) == set(LightningCLI.subcommands())
    own = [name for name in vars(SpikingCLI) if name.startswith("_") and not name.startswith("__")]
    theirs = {name for base in SpikingCLI.__mro__[1:] for name in vars(base)}
    assert not theirs & set(own)
