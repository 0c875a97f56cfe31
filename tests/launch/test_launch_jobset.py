"""JobSets for every kind of slice: valid, and of the size that the slice has."""

import math

import jsonschema
import kubernetes_validate
import pytest
import yaml

from hope_jax.parallel.slices import find_slice

SLICES = [
    "v4-64",
    "v5e-8",
    "v5e-16",
    "v5e-64",
    "v5e-256",
    "v5p-64",
    "v5p-256",
    "v5p-1024",
    "v5p:4x4x12",
    "v6e-64",
    "v6e-256",
    "tpu7x-128",
]
TRAIN = ["hope", "train", "--config", "experiments/hope_1b.py", "--workdir", "/work/runs/a"]
IMAGE = ["--image", "region-docker.pkg.dev/project/images/hope:1"]
KUBERNETES = "1.33"


def strict(properties, required=None):
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": list(properties) if required is None else required,
    }


# What a JobSet has around its Jobs, as far as the template uses it.
JOBSET = strict(
    {
        "apiVersion": {"const": "jobset.x-k8s.io/v1alpha2"},
        "kind": {"const": "JobSet"},
        "metadata": strict(
            {
                "name": {"type": "string", "pattern": "^[a-z]([a-z0-9-]*[a-z0-9])?$"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            ["name", "annotations"],
        ),
        "spec": strict(
            {
                "failurePolicy": strict(
                    {
                        "maxRestarts": {"type": "integer", "minimum": 0},
                        "rules": {
                            "type": "array",
                            "items": strict(
                                {
                                    "action": {
                                        "enum": [
                                            "FailJobSet",
                                            "RestartJobSet",
                                            "RestartJobSetAndIgnoreMaxRestarts",
                                        ]
                                    },
                                    "onJobFailureReasons": {
                                        "type": "array",
                                        "items": {
                                            "enum": [
                                                "BackoffLimitExceeded",
                                                "DeadlineExceeded",
                                                "FailedIndexes",
                                                "MaxFailedIndexesExceeded",
                                                "PodFailurePolicy",
                                            ]
                                        },
                                    },
                                }
                            ),
                        },
                    }
                ),
                "replicatedJobs": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 1,
                    "items": strict(
                        {
                            "name": {"const": "slice"},
                            "replicas": {"type": "integer", "minimum": 1},
                            "template": strict({"spec": {"type": "object"}}),
                        }
                    ),
                },
            }
        ),
    }
)


def render(scripts, *options, name="run", program=(*TRAIN, "--distributed")):
    return scripts.run("jobset.sh", "render", name, *options, *IMAGE, "--", *program).stdout


def check(jobset):
    """The Job that each slice becomes, valid to Kubernetes."""
    jsonschema.validate(jobset, JOBSET)
    (group,) = jobset["spec"]["replicatedJobs"]
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": jobset["metadata"]["name"] + "-slice-0"},
        "spec": group["template"]["spec"],
    }
    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    return group, job


@pytest.mark.parametrize("slices", [1, 2, 4])
@pytest.mark.parametrize("name", SLICES)
def test_a_jobset_is_valid_and_as_large_as_its_slices(scripts, name, slices):
    size = find_slice(name)
    if size.hosts == 1 and slices > 1:
        said = scripts.refused(
            *["jobset.sh", "render", "run", "--slice", name, "--slices", str(slices)],
            *[*IMAGE, "--claim", "work", "--", *TRAIN, "--distributed"],
        )
        assert "GKE joins slices of several hosts only" in said
        return
    jobset = yaml.safe_load(
        render(scripts, "--slice", name, "--slices", str(slices), "--claim", "work")
    )
    group, job = check(jobset)
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert group["replicas"] == slices
    assert spec["completions"] == spec["parallelism"] == size.hosts
    assert spec["completionMode"] == "Indexed" and spec["backoffLimit"] == 0
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert chips == container["resources"]["requests"]["google.com/tpu"]
    assert spec["completions"] * chips == math.prod(map(int, topology.split("x"))) == size.chips
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"] == size.chip.accelerator
    assert container["args"] == [*TRAIN, "--distributed"] and "command" not in container
    assert container["image"] == IMAGE[1]
    # longest name of a pod: a label, and so 63 characters
    pod_name = f"{jobset['metadata']['name']}-slice-{slices - 1}-{size.hosts - 1}-xxxxx"
    assert len(pod_name) <= 63


def test_what_ends_a_run_and_what_begins_it_again(scripts):
    jobset = yaml.safe_load(render(scripts, "--slice", "v5e-16", "--bucket", "b"))
    _, job = check(jobset)
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] >= 300  # Kubernetes' 30 do not hold a save
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 100
    (rule,) = job["spec"]["podFailurePolicy"]["rules"]
    on = rule["onExitCodes"]
    assert (rule["action"], on["operator"], on["values"]) == ("FailJob", "In", [2])
    assert on["containerName"] == pod["containers"][0]["name"]
    assert policy["rules"] == [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]
    options = ["--slice", "v5e-16", "--claim", "c", "--restarts", "0", "--grace", "090"]
    jobset = yaml.safe_load(render(scripts, *options))
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 0
    _, job = check(jobset)
    assert job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 90


def test_storage_queue_spot_account_and_variables(scripts):
    text = render(
        scripts,
        *["--slice", "v6e-16", "--bucket", "my-bucket", "--service-account", "trainer"],
        *["--spot", "--queue", "pods", "--env", "LIBTPU_INIT_ARGS=--a=1 --b='2'"],
        *["--secret", "WANDB_API_KEY=wandb", "--secret", "HF_TOKEN=hub/token"],
    )
    jobset = yaml.safe_load(text)
    _, job = check(jobset)
    assert jobset["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "pods"}
    pod = job["spec"]["template"]
    assert pod["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}
    pod = pod["spec"]
    assert pod["serviceAccountName"] == "trainer"
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert {t["key"] for t in pod["tolerations"]} == {
        "google.com/tpu",
        "cloud.google.com/gke-spot",
    }
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["work"]["csi"]["volumeAttributes"]["bucketName"] == "my-bucket"
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"shared-memory": "/dev/shm", "work": "/work"}
    variables = {entry.pop("name"): entry for entry in container["env"]}
    assert variables["LIBTPU_INIT_ARGS"] == {"value": "--a=1 --b='2'"}
    by_name = {
        name: entry["valueFrom"]["secretKeyRef"]
        for name, entry in variables.items()
        if "valueFrom" in entry
    }
    assert by_name == {
        "WANDB_API_KEY": {"name": "wandb", "key": "WANDB_API_KEY"},
        "HF_TOKEN": {"name": "hub", "key": "token"},
    }
    plain = yaml.safe_load(render(scripts, "--slice", "v6e-16", "--claim", "disk"))
    _, job = check(plain)
    pod = job["spec"]["template"]["spec"]
    assert "labels" not in plain["metadata"] and "serviceAccountName" not in pod
    assert pod["volumes"][1]["persistentVolumeClaim"] == {"claimName": "disk"}


def test_the_words_of_the_program_arrive_as_they_are(scripts):
    words = ["--set", "model.mixer.adaptive=('k','v')", 'quote " and $HOME and #', "ünï"]
    program = [*TRAIN, "--distributed", *words]
    jobset = yaml.safe_load(
        render(scripts, "--slice", "v5e-16", "--claim", "c", program=program)
    )
    _, job = check(jobset)
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == program


@pytest.mark.parametrize("words", [["--workdir=/work/runs/x"], ["--workdir", "/work"]])
def test_every_form_of_a_work_folder_that_outlives_the_pods(scripts, words):
    program = [*TRAIN[:-2], *words, "--distributed"]
    assert "/work" in render(scripts, "--slice", "v5e-16", "--claim", "c", program=program)


def test_a_name_that_yaml_would_read_as_something_else(scripts):
    jobset = yaml.safe_load(render(scripts, "--slice", "v5e-16", "--claim", "no", name="true"))
    check(jobset)
    assert jobset["metadata"]["name"] == "true"


def test_kubectl_is_called_for_what_it_is_asked(scripts):
    options = ["--slice", "v5e-16", *IMAGE, "--claim", "work", "--namespace", "team"]
    scripts.run("jobset.sh", "apply", "run", *options, "--", *TRAIN, "--distributed")
    for action in ("status", "logs", "delete"):
        scripts.run("jobset.sh", action, "run", HOPE_NAMESPACE="team")
    apply, *rest = scripts.calls("kubectl")
    assert apply.words == ["--namespace", "team", "apply", "-f", "-"]
    check(yaml.safe_load(apply.stdin))
    lines = [call.line for call in rest]
    assert lines[0] == "kubectl --namespace team get jobset run -o wide"
    assert "get pods --selector jobset.sigs.k8s.io/jobset-name=run" in lines[1]
    assert (
        "logs --selector jobset.sigs.k8s.io/jobset-name=run,jobset.sigs.k8s.io/job-index=0"
        in lines[2]
    )
    assert "job-completion-index=0 --container train --follow" in lines[2]
    assert lines[3] == "kubectl --namespace team delete jobset run"
    assert len(lines) == 4 and len(scripts.calls()) == 5


GOOD = ["--slice", "v5e-16", *IMAGE, "--claim", "work"]
ALL = [*TRAIN, "--distributed"]
IN = TRAIN[:-1]  # what comes next is the work folder


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "say what to do, one of: render apply status logs delete"),
        (["start", "run"], "cannot 'start'; choose one of: render apply"),
        (["apply"], "say which: launch/jobset.sh apply NAME"),
        (["apply", "Run_1"], "name 'Run_1': use small letters, digits and dashes"),
        (["apply", "a" * 64], "use at most 63"),
        (["apply", "a" * 50, *GOOD, "--", *ALL], "use at most 47 characters"),
        (["apply", "run"], "apply needs --slice"),
        (["apply", "run", "--slice", "v9-8"], "there is no TPU 'v9'"),
        (["apply", "run", "--slice", "v5e-17"], "the nearest sizes are v5e-4, v5e-8, v5e-16"),
        (["apply", "run", "--slice", "v5e-16"], "apply needs --image"),
        (["apply", "run", *GOOD], "say what to run after --"),
        (["apply", "run", *GOOD, "--", "hope", "train"], "hope train needs --workdir"),
        (["apply", "run", *GOOD, "--", *TRAIN], "add --distributed"),
        (["apply", "run", *GOOD[:-2], "--", *ALL], "give --claim or --bucket"),
        (["apply", "run", *GOOD, "--bucket", "b", "--", *ALL], "one of them"),
        (["apply", "run", *GOOD, "--bucket", "gs://b"], "give the name without gs://"),
        (["apply", "run", *GOOD, "--slices", "two"], "--slices two: give a whole number"),
        (["apply", "run", *GOOD, "--slices", "0"], "give at least 1"),
        (["apply", "run", *GOOD, "--restarts", "-1"], "--restarts -1: give a whole number"),
        (["apply", "run", "--silce", "v5e-16"], "no option --silce; there are: --slice"),
        (["apply", "run", "--slice"], "--slice needs a value"),
        (["apply", "run", "--image="], "--image is empty"),
        (["apply", "run", "--spot=no"], "--spot takes no value"),
        (["apply", "run", "it"], "'it' is one word too many"),
        (["apply", "run", *GOOD, "--image", "a b"], "has a blank in it"),
        (["apply", "run", *GOOD, "--env", "X"], "write NAME=VALUE"),
        (["apply", "run", *GOOD, "--secret", "X"], "write VARIABLE=NAME"),
        (["apply", "run", *GOOD, "--", *IN, "runs/x"], "--workdir runs/x is not below /work"),
        (["apply", "run", *GOOD, "--", *IN[:-1], "--workdir=/workers"], "is not below /work"),
        (["apply", "run", *GOOD, "--", *IN, "/work/a", "--workdir", "/b"], "/b is not below"),
        (["apply", "run", *GOOD, "--", *IN, "/work/../x"], "--workdir /work/../x is not below"),
        (["apply", "run", *GOOD, "--", *IN, "gs://b/x"], "--workdir gs://b/x is not below"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_in_one_line_and_nothing_is_called(scripts, words, said):
    assert said in scripts.refused("jobset.sh", *words)


def test_without_kubectl(scripts):
    (scripts.bin / "kubectl").unlink()
    said = scripts.refused("jobset.sh", "apply", "run", *GOOD, "--", *ALL)
    assert "there is no kubectl on PATH" in said
