"""Sweeps as arrays: here, as an indexed Job, as an array job of Slurm."""

import kubernetes_validate
import pytest
import yaml

SWEEP = ["hope", "sweep", "experiments/optimizers/wikitext.py", "--workdir", "/work/runs/w"]
GKE = ["--slice", "v5e-8", "--image", "registry/hope:1", "--claim", "work"]
KUBERNETES = "1.33"


def test_here(scripts):
    scripts.stub("hope")
    scripts.run("sweep.sh", "local", "w", "--at-once", "2", "--", *SWEEP)
    assert [call.words for call in scripts.calls()] == [[*SWEEP[1:], "--local", "2"]]


def rendered(scripts, *options):
    scripts.run("sweep.sh", "gke", "w", *GKE, *options, "--", *SWEEP)
    job = yaml.safe_load(scripts.calls("kubectl")[-1].stdin)
    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    return job


def test_an_indexed_job_has_a_pod_for_every_point(scripts):
    scripts.stub("hope")
    scripts.answer("--count", answers=[(0, "120\n")])
    job = rendered(scripts, "--at-once", "8", "--secret", "WANDB_API_KEY=wandb", "--spot")
    (count,) = scripts.calls("hope")
    assert count.words == [*SWEEP[1:], "--count"]
    assert scripts.calls("kubectl")[0].words == ["apply", "-f", "-"]
    spec = job["spec"]
    assert spec["completions"] == 120 and spec["parallelism"] == 8
    assert spec["completionMode"] == "Indexed" and spec["backoffLimitPerIndex"] == 10
    rule, mistake = spec["podFailurePolicy"]["rules"]  # a node taken away is no failure
    assert rule["action"] == "Ignore"
    assert rule["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert mistake["action"] == "FailIndex" and mistake["onExitCodes"]["values"] == [2]
    pod = spec["template"]["spec"]
    assert mistake["onExitCodes"]["containerName"] == pod["containers"][0]["name"]
    assert pod["restartPolicy"] == "Never" and pod["terminationGracePeriodSeconds"] >= 300
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "2x4"
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": 8}
    (variable,) = container["env"]
    assert variable["valueFrom"]["secretKeyRef"]["name"] == "wandb"


def test_each_pod_runs_the_point_of_its_index(scripts):
    scripts.stub("hope")
    job = rendered(scripts, "--points", "3")
    args = job["spec"]["template"]["spec"]["containers"][0]["args"]
    scripts.run("env.sh", *args, JOB_COMPLETION_INDEX="2")
    assert [call.words for call in scripts.calls("hope")] == [[*SWEEP[1:], "--index", "2"]]


def test_an_array_job(scripts):
    options = ["--points", "5", "--at-once", "2", "--partition", "gpu", "--gpus", "1"]
    scripts.run("sweep.sh", "slurm", "w", *options, "--", *SWEEP)
    (call,) = scripts.calls()
    assert call.program == "sbatch"
    assert {"--array=0-4%2", "--ntasks-per-node=1", "--gpus-per-node=1", "--nodes=1"} < set(
        call.words
    )
    assert {"--partition=gpu", "--output=w-%A-%a.log"} < set(call.words)
    assert call.words[-len(SWEEP) :] == SWEEP


def test_status_and_delete(scripts):
    scripts.run("sweep.sh", "status", "w")
    scripts.run("sweep.sh", "delete", "w", "--namespace", "team")
    assert [call.line for call in scripts.calls()] == [
        "kubectl get job w -o wide",
        "kubectl get pods --selector batch.kubernetes.io/job-name=w -o wide",
        "kubectl --namespace team delete job w",
    ]


@pytest.mark.parametrize(
    "words, said",
    [
        (["gke", "w", *GKE, "--", *SWEEP], "there is no hope on PATH to count the points"),
        (["gke", "w", *GKE], "after -- comes: hope sweep FILE"),
        (["gke", "w", *GKE, "--", "hope", "train"], "after -- comes: hope sweep FILE"),
        (["gke", "w", *GKE, "--", *SWEEP, "--local", "2"], "leave out --local"),
        (["gke", "w", *GKE, "--", *SWEEP, "--index=2"], "leave out --index"),
        (["gke", "w", "--slice", "v5e-16", *GKE[2:], "--", *SWEEP], "v5e-16 has 4 hosts"),
        (["gke", "w", *GKE[:-2], "--", *SWEEP], "give --claim or --bucket"),
        (["gke", "w", *GKE, "--", *SWEEP[:3]], "hope sweep needs --workdir"),
        (
            ["gke", "w", *GKE, "--", *SWEEP[:-1], "runs/w"],
            "--workdir runs/w is not below /work",
        ),
        (["gke", "w", *GKE, "--points", "0", "--", *SWEEP], "--points 0: give at least 1"),
        (["local", "w", "--env", "A=B", "--", *SWEEP], "local takes no --env"),
        (["local", "w", "--points=3", "--", *SWEEP], "local takes no --points"),
        (["gke", "w", *GKE, "--gpus", "1", "--", *SWEEP], "gke takes no --gpus"),
        (["slurm", "w", "--env", "A=B", "--", *SWEEP], "slurm takes no --env"),
        (["slurm", "w", "--slice", "v5e-1", "--", *SWEEP], "slurm takes no --slice"),
        (["slurm", "w", "--namespace", "x", "--", *SWEEP], "slurm takes no --namespace"),
        (["status", "w", "--spot"], "status takes no --spot"),
        (["slurm", "w", "--at-once", "x", "--points", "1", "--", *SWEEP], "--at-once x"),
    ],
)
def test_nonsense_is_refused(scripts, words, said):
    assert said in scripts.refused("sweep.sh", *words)


def test_what_the_environment_says_is_for_the_actions_that_take_it(scripts):
    scripts.stub("hope")
    scripts.run("sweep.sh", "local", "w", "--", *SWEEP, HOPE_NAMESPACE="team", HOPE_IMAGE="i")
    scripts.run("sweep.sh", "status", "w", HOPE_NAMESPACE="team", HOPE_IMAGE="i")
    assert "--namespace team" in scripts.calls("kubectl")[0].line


def test_a_sweep_that_cannot_be_counted(scripts):
    scripts.stub("hope")
    scripts.answer("--count", answers=[(2, "")])
    done = scripts.run("sweep.sh", "gke", "w", *GKE, "--", *SWEEP, status=2)
    assert "hope sweep could not count the points" in done.stderr
    assert scripts.calls("kubectl") == []
