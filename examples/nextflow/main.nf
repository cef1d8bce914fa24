// One process per subject or session:
//   bash ../slurm_array.sh --list DIR > tasks.txt
//   nextflow run main.nf --bids DIR --output DIR --tasks tasks.txt -profile apptainer
// -profile apptainer,gpu for a GPU; -profile apptainer,slurm for a cluster. Each line of the tasks is a subject, or a
// subject and a session (--list-sessions).
nextflow.enable.dsl = 2

params.bids = null
params.output = null
params.tasks = null
params.options = '--output-resolution 1.25'
params.device = 'cpu'

process BIDS_SR {
    tag { session ? "sub-${subject}_ses-${session}" : "sub-${subject}" }
    label 'process_gpu'

    // Both folders are inputs so that containers see them. All tasks write into one folder, which has to be on a disk
    // that all of them see: bids_sr keeps them apart, and writes the reports and the description of the dataset
    // from the results of all. Copies published by each task would replace each other.
    input:
    tuple val(subject), val(session), path(bids, stageAs: 'bids'), path(results, stageAs: 'results')

    script:
    def session_option = session ? "--session-label ${session}" : ''
    """
    bids_sr "\$(realpath bids)" "\$(realpath results)" participant --participant-label ${subject} ${session_option} \\
        ${params.options} --device ${params.device} --nprocs ${task.cpus} --mem ${task.memory.toGiga()}G -w scratch --clean-workdir
    """
}

workflow {
    if (!params.bids || !params.output || !params.tasks) {
        error 'Give --bids DIR, --output DIR and --tasks FILE.'
    }
    bids = file(params.bids, checkIfExists: true)
    results = file(params.output)
    results.mkdirs()
    tasks = channel.fromPath(params.tasks, checkIfExists: true).splitText { it.trim() }.filter { it }
    BIDS_SR(tasks.map { line -> def words = line.split(' '); tuple(words[0], words.size() > 1 ? words[1] : '', bids, results) })
}
