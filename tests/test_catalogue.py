"""Which test holds which row of the catalogue of faults, and that none is without one.

A row of bad input (IN), masks (MA), models (MO) or faults at run time (RT) has the tests that prove its answer,
or the reason why it needs none in this release. Each test is named by its file below ``tests/`` and its function.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent

_BAD = "data/test_bad_files.py::"
_VOLUME = "data/test_volume.py::"
_LOOKS = "data/test_intensities.py::"
_SPLICE = "data/test_splice.py::"
_FRAME = "data/test_frame.py::"
_VALUES = "data/test_mask_values.py::"
_GRID = "data/test_mask_grid.py::"
_CHECKS = "data/test_mask_checks.py::"
_MASKS = "data/test_masks.py::"
_SPECKS = "data/test_mask_specks.py::"
_WEIGHTS = "test_checkpoint.py::"
_MODELS = "models/test_catalogue.py::"
_DISK = "data/test_atomic.py::"
_DEVICE = "test_device.py::"
_PAINT = "test_painting.py::"
_STOP = "test_interrupts.py::"
_READ = "test_reading.py::"
_ENDS = "test_loose_ends.py::"
_PREPARE = "test_prepare.py::"
_REFUSED = _BAD + "test_bad_files_are_refused"
_TRAIN = "trainer/test_train.py::"
_PROCESSES = "trainer/test_processes.py::"
_COHORT = "cohort/test_engine.py::"
_GUARD = "review/test_guard.py::"
_PAGE_API = "review/test_api.py::"
_PAGE_JOBS = "review/test_jobs.py::"
_PAGE_SERVER = "review/test_server.py::"

NO_DOWNLOAD = (
    "nothing is downloaded in this release: the weights are in the wheel, or in a folder of the user"
)

ROWS: dict[str, list[str] | str] = {
    "IN-01": [_REFUSED],
    "IN-02": [_REFUSED, _BAD + "test_every_truncation_of_a_stream_is_refused"],
    "IN-03": [_REFUSED, _BAD + "test_every_flipped_bit_of_a_stream_is_refused_or_harmless"],
    "IN-04": [
        _VOLUME + "test_bytes_behind_the_last_voxel_are_noted",
        _VOLUME + "test_bytes_behind_the_gzip_stream_are_noted",
    ],
    "IN-05": [_REFUSED, _BAD + "test_what_is_no_regular_file_is_refused"],
    "IN-06": [
        _VOLUME + "test_names_do_not_matter_contents_do",
        _SPLICE + "test_the_output_has_the_format_of_the_input",
    ],
    "IN-07": [_REFUSED],
    "IN-08": [_REFUSED],
    "IN-09": [_REFUSED, _BAD + "test_bombs_and_lies_about_size_are_refused_fast_and_small"],
    "IN-10": [
        _BAD + "test_bombs_and_lies_about_size_are_refused_fast_and_small",
        _BAD + "test_more_voxels_than_allowed_are_refused",
    ],
    "IN-11": [_VOLUME + "test_singleton_axes_are_squeezed"],
    "IN-12": [
        _REFUSED,
        _BAD + "test_a_volume_that_is_not_there_is_a_usage_error",
        _SPLICE + "test_only_the_chosen_volume_of_a_series_changes",
        "test_filling.py::test_one_volume_of_a_series_is_filled_and_the_others_stay",
    ],
    "IN-13": [_REFUSED],
    "IN-14": [_REFUSED],
    "IN-15": [
        _LOOKS + "test_nan_in_the_background_is_counted_and_located",
        _LOOKS + "test_a_nan_in_the_brain_is_warned_of",
        _LOOKS + "test_many_nan_in_the_brain_are_refused",
        _SPLICE + "test_nan_payloads_outside_the_mask_survive",
        "data/test_intensity.py::test_voxels_that_are_not_finite_become_background_and_do_not_count",
    ],
    "IN-16": [_LOOKS + "test_an_image_without_content_is_refused"],
    "IN-17": [
        _LOOKS + "test_ct_is_warned_of_and_other_negative_values_are_not",
        "data/test_intensity.py::test_gain_and_offset_of_the_scanner_do_not_matter",
    ],
    "IN-18": [
        _SPLICE + "test_clipped_predictions_are_counted",
        _SPLICE + "test_predictions_that_nearly_fit_are_told_from_those_far_outside",
        "test_promises.py::test_a_few_clipped_voxels_are_no_warning",
        "test_cli_identity.py::test_nifti_outside_the_mask_is_identical_byte_for_byte",
    ],
    "IN-19": [
        _REFUSED,
        _VOLUME + "test_a_slope_that_is_none_means_no_scaling",
        _VOLUME + "test_an_extreme_slope_is_used_and_warned_of",
    ],
    "IN-20": [_VOLUME + "test_every_stored_type_is_read"],
    "IN-21": [
        _VOLUME + "test_large_integers_and_floats_are_kept",
        "data/test_intensity.py::test_large_integers_keep_their_differences",
    ],
    "IN-22": [
        _REFUSED,
        _VOLUME + "test_a_stated_orientation_is_used_where_there_is_none",
        _READ + "test_two_files_that_both_tell_nothing_are_accepted_loudly",
        _READ + "test_the_header_is_written_back_as_it_was",
        _READ + "test_other_pairs_without_world_coordinates_are_refused",
    ],
    "IN-23": [_REFUSED, _VOLUME + "test_the_sform_wins_and_the_difference_is_told"],
    "IN-24": [_REFUSED],
    "IN-25": [_VOLUME + "test_the_affine_gives_the_spacing_where_pixdim_differs"],
    "IN-26": [_VOLUME + "test_header_noise_is_no_difference"],
    "IN-27": [
        _VOLUME + "test_all_orientations_agree_with_nibabel",
        _FRAME + "test_every_voxel_comes_back_from_its_own_place_in_all_48_orientations",
    ],
    "IN-28": [
        _VOLUME + "test_all_orientations_agree_with_nibabel",
        _FRAME + "test_every_voxel_of_an_oblique_scan_comes_back_from_its_own_place",
    ],
    "IN-29": [
        _VOLUME + "test_shear_is_warned_of",
        _FRAME + "test_a_sheared_scan_comes_back_from_its_own_place",
    ],
    "IN-30": [
        _VOLUME + "test_coarse_and_flat_voxels_are_warned_of",
        "data/test_trained_range.py::test_larger_voxels_are_a_warning_with_the_range",
        "data/test_trained_range.py::test_finer_voxels_are_a_note",
    ],
    "IN-31": [_REFUSED, _VOLUME + "test_units_are_converted_to_mm"],
    "IN-32": [_REFUSED],
    "IN-33": [_ENDS + "test_a_huge_field_of_view_costs_no_more_than_its_head"],
    "IN-34": [
        _REFUSED,  # NRRD too: no extra reads it in this release
        _BAD + "test_analyze_is_not_guessed",
        _VOLUME + "test_analyze_is_read_with_a_stated_orientation",
        _SPLICE + "test_the_output_has_the_format_of_the_input",
    ],
    "IN-35": [_REFUSED, _BAD + "test_the_missing_half_of_a_pair_is_named"],
    "IN-36": [_REFUSED, _BAD + "test_what_is_no_regular_file_is_refused"],
    "IN-37": [
        _VOLUME + "test_header_extensions_are_noted",
        _SPLICE + "test_header_extensions_are_kept_byte_for_byte",
    ],
    "IN-38": [
        _BAD + "test_what_is_no_regular_file_is_refused",
        _ENDS + "test_every_legal_name_goes_through_the_command_line",
    ],
    "IN-39": [
        _LOOKS + "test_other_contrasts_are_told_by_the_name",
        _LOOKS + "test_other_contrasts_are_told_by_the_sidecar",
        _LOOKS + "test_a_stated_other_contrast_is_warned_of",
        _LOOKS + "test_a_model_may_be_made_for_other_contrasts",
        _READ + "test_the_model_card_is_compared_with_the_scan",
    ],
    "IN-40": [
        _LOOKS + "test_skull_stripped_scans_are_told_by_their_border",
        "data/test_trained_range.py::test_a_coverage_that_the_model_never_saw_is_a_warning",
    ],
    "IN-41": [
        _LOOKS + "test_a_scan_that_was_inpainted_before_is_warned_of",
        _ENDS + "test_a_filled_scan_is_known_again_and_never_replaced_in_place",
    ],
    "IN-42": [_BAD + "test_a_file_that_changes_while_it_is_read_is_refused"],
    "MA-01": [
        _VALUES + "test_an_empty_mask_is_refused",
        _VALUES + "test_an_empty_mask_that_is_allowed_selects_nothing_and_says_so",
        _VALUES + "test_a_mask_that_its_options_empty_is_refused_with_the_reason",
        _SPECKS + "test_a_mask_of_which_nothing_is_left_is_empty",
    ],
    "MA-02": [
        _CHECKS + "test_a_mask_of_the_whole_volume_is_refused",
        _CHECKS + "test_a_brain_mask_is_refused",
        _CHECKS + "test_more_than_half_of_the_brain_is_refused_with_the_percentage",
        _CHECKS + "test_more_than_a_quarter_of_the_brain_is_a_warning_and_a_sixth_a_note",
    ],
    "MA-03": [
        _CHECKS + "test_a_mask_of_the_background_is_refused",
        _VALUES + "test_an_inverted_mask_is_turned_when_asked",
    ],
    "MA-04": [
        _VALUES + "test_probabilities_are_refused_without_a_threshold",
        _VALUES + "test_a_threshold_selects_the_values_at_or_above_it_and_is_recorded",
    ],
    "MA-05": [_VALUES + "test_soft_edges_are_refused_with_the_number_of_voxels_that_hang_on_the_threshold"],
    "MA-06": [
        _VALUES + "test_a_label_map_is_refused_with_labels_volumes_and_a_hint",
        _VALUES + "test_chosen_labels_are_selected_and_the_others_named",
        _VALUES + "test_all_labels_are_selected_when_asked",
    ],
    "MA-07": [
        _VALUES + "test_zero_and_one_other_value_is_a_mask_with_a_note",
        _VALUES + "test_values_that_mean_nothing_are_refused",
    ],
    "MA-08": [_VALUES + "test_zero_and_one_of_any_type_is_a_mask"],
    "MA-09": [
        _GRID + "test_another_shape_is_refused",
        _GRID + "test_a_mask_of_another_shape_is_resampled_when_asked_and_its_volume_reported",
        _GRID + "test_lesions_lost_between_the_voxels_are_reported_as_a_warning",
    ],
    "MA-10": [
        _GRID + "test_header_noise_up_to_a_hundredth_of_a_millimetre_is_silent",
        _GRID + "test_up_to_half_a_voxel_is_a_warning",
        _GRID + "test_more_than_half_a_voxel_is_refused_with_the_worst_corner",
    ],
    "MA-11": [
        _CHECKS + "test_a_mask_that_a_flip_would_bring_into_the_head_is_a_warning",
        _CHECKS + "test_a_mask_in_air_that_a_flip_would_bring_into_the_head_says_so",
        "report/test_planes.py::test_left_is_on_the_left_in_every_plane_that_shows_it",
    ],
    "MA-12": [
        _GRID + "test_a_mask_outside_the_field_of_view_is_refused_with_the_distance",
        _GRID + "test_the_part_of_a_mask_that_is_cut_off_by_the_field_of_view_is_reported",
    ],
    "MA-13": [
        _CHECKS + "test_a_mask_in_air_is_refused_with_the_share",
        _CHECKS + "test_a_mask_that_reaches_into_air_is_a_warning_with_the_share",
    ],
    "MA-14": [_CHECKS + "test_a_lesion_at_the_border_of_the_volume_is_a_warning"],
    "MA-15": [
        _CHECKS + "test_many_specks_are_all_kept_and_counted",
        _SPECKS + "test_nothing_is_left_out_unless_asked",
        _SPECKS + "test_what_is_left_out_is_counted",
        _ENDS + "test_the_record_holds_the_mask_as_it_was_dilated_and_cleaned",
    ],
    "MA-16": [
        _CHECKS + "test_a_thin_sheet_is_noted",
        _CHECKS + "test_holes_in_a_lesion_are_counted_and_stay",
        _CHECKS + "test_more_than_a_quarter_of_the_brain_is_a_warning_and_a_sixth_a_note",
    ],
    "MA-17": [
        _GRID + "test_the_image_itself_as_mask_is_refused",
        _GRID + "test_a_copy_of_the_image_as_mask_is_refused",
    ],
    "MA-18": [
        _GRID + "test_a_mask_named_after_another_person_or_session_is_refused",
        _GRID + "test_a_forced_pair_is_accepted_with_a_warning",
    ],
    "MA-19": [_MASKS + "test_a_truncated_mask_is_refused_before_it_becomes_a_smaller_lesion"],
    "MA-20": [
        _MASKS + "test_dilation_is_in_millimetres_on_an_anisotropic_grid",
        _MASKS + "test_dilation_stops_at_the_border_of_the_volume",
        _ENDS + "test_the_record_holds_the_mask_as_it_was_dilated_and_cleaned",
    ],
    "MO-01": [
        _WEIGHTS + "test_a_pickle_under_the_name_of_safetensors_is_refused_unopened",
        _WEIGHTS + "test_a_torch_save_archive_is_refused_unopened",
        _MODELS + "test_a_pickle_file_is_refused_by_name",
    ],
    "MO-02": [
        _WEIGHTS + "test_no_module_of_the_package_can_unpickle",
        "models/test_method_folder.py::test_a_fill_from_a_folder_opens_no_pickle",
    ],
    "MO-03": [
        _WEIGHTS + "test_weights_cut_at_200_lengths_are_refused_with_both_sizes",
        _WEIGHTS + "test_trailing_bytes_are_refused_with_both_sizes",
        _WEIGHTS + "test_an_absurd_header_length_is_refused_without_allocating",
        _WEIGHTS + "test_a_file_of_another_kind_is_recognised",
    ],
    "MO-04": [_WEIGHTS + "test_a_thousand_single_flipped_bits_are_all_refused"],
    "MO-05": [_WEIGHTS + "test_weights_that_are_not_finite_are_refused_by_name"],
    "MO-06": [
        _MODELS + "test_an_unknown_method_is_refused_with_the_known_ones",
        _MODELS + "test_a_config_that_does_not_fit_is_refused_naming_the_field",
        _WEIGHTS + "test_another_shape_is_refused_with_both_shapes",
    ],
    "MO-07": [_WEIGHTS + "test_a_missing_or_unexpected_tensor_is_refused_by_name"],
    "MO-08": [_WEIGHTS + "test_another_format_version_is_refused_with_the_version_needed"],
    "MO-09": [
        _WEIGHTS + "test_an_edited_config_is_refused",
        _WEIGHTS + "test_weights_without_a_config_digest_are_refused",
    ],
    "MO-10": [_WEIGHTS + "test_licence_and_missing_average_are_told"],
    "MO-11": NO_DOWNLOAD,
    "MO-12": "a model is a folder of plain files; no archive is ever unpacked",
    "MO-13": NO_DOWNLOAD,
    "MO-14": f"there is no cache to be full or read-only: {NO_DOWNLOAD}",
    "MO-15": [
        _WEIGHTS + "test_licence_and_missing_average_are_told",
        _MODELS + "test_verifying_reads_the_weights_and_tells_missing_papers",
    ],
    "RT-01": [
        _DISK + "test_a_missing_folder_is_created_and_named",
        _DISK + "test_a_file_where_the_folder_should_be_is_refused",
    ],
    "RT-02": [_DISK + "test_a_folder_without_permission_is_refused"],
    "RT-03": [
        _DISK + "test_too_little_space_is_refused",
        _DISK + "test_a_file_that_does_not_fit_leaves_the_older_one",
        _DISK + "test_a_failure_at_any_point_leaves_whole_files_only",
    ],
    "RT-04": [_DISK + "test_an_existing_output_is_refused_unless_it_may_be_replaced"],
    "RT-05": [
        "test_saving.py::test_complete_output_of_the_same_run_is_kept",
        "test_saving.py::test_another_setting_or_model_is_done_again",
        "test_saving.py::test_incomplete_or_edited_output_is_done_again",
        _ENDS + "test_a_kept_output_is_not_called_done",
    ],
    "RT-06": [
        _DISK + "test_a_kill_at_any_point_leaves_whole_files_and_hidden_ones",
        _DISK + "test_only_old_hidden_files_of_ours_are_removed",
    ],
    "RT-07": [
        _DISK + "test_failures_of_the_disk_have_codes",
        _DISK + "test_folders_that_cannot_be_flushed_are_no_failure",
    ],
    "RT-08": [
        _STOP + "test_a_signal_ends_a_command_with_its_status_and_the_line_to_rerun",
        _STOP + "test_a_signal_while_writing_leaves_nothing_behind",
        _STOP + "test_the_second_signal_ends_the_process_at_once",
    ],
    "RT-09": [
        _STOP + "test_a_signal_ends_a_command_with_its_status_and_the_line_to_rerun",
        _STOP + "test_a_signal_while_writing_leaves_nothing_behind",
    ],
    "RT-10": [
        _DEVICE + "test_auto_is_the_cpu_where_there_is_no_gpu",
        _DEVICE + "test_an_absent_device_asked_for_by_name_is_refused",
    ],
    "RT-11": [
        _PAINT + "test_the_cpu_takes_over_and_stays",
        _PAINT + "test_without_fallback_it_ends",
        _PAINT + "test_other_faults_of_a_network_are_not_taken_for_memory",
    ],
    "RT-12": [
        _DEVICE + "test_a_peak_that_fits_passes_one_that_squeezes_warns_and_one_beyond_is_refused",
        "test_cli.py::test_lack_of_memory_may_be_cured_by_a_second_try",
    ],
    "RT-13": [
        _DEVICE + "test_a_gpu_that_does_not_work_is_refused_by_name_and_noted_by_auto",
        "test_doctor.py::test_driver_gpu_and_torch_are_told_together",
    ],
    "RT-14": "a GPU whose memory another process takes is a GPU that runs out of memory: RT-11",
    "RT-15": [
        _PAINT + "test_float32_is_tried_once",
        _PAINT + "test_twice_is_refused",
        _PAINT + "test_nothing_is_written",
    ],
    "RT-16": [
        _COHORT + "test_ten_bad_cases_of_forty_do_not_stop_the_others",
        _COHORT + "test_fail_fast_begins_no_more",
    ],
    "RT-17": [
        _COHORT + "test_neither_order_nor_subset_changes_a_result",
        _COHORT + "test_a_stopped_run_leaves_nothing_half_written_and_can_go_on",
        "cohort/test_worker.py::test_the_seed_of_a_case_depends_on_the_run_and_its_id_alone",
    ],
    "RT-18": [
        _COHORT + "test_two_runs_into_one_folder_give_one_result",
        "cohort/test_state.py::test_the_lock_of_a_process_that_is_no_more_is_taken_over_at_once",
    ],
    "RT-19": [
        _DISK + "test_an_output_that_is_an_input_is_refused",
        _DISK + "test_a_link_to_itself_is_refused",
    ],
    "RT-20": [_ENDS + "test_strange_environments_are_no_obstacle"],
    "RT-21": [
        _DISK + "test_modes_follow_the_umask",
        _ENDS + "test_strange_environments_are_no_obstacle",
    ],
    "RT-22": [_ENDS + "test_strange_environments_are_no_obstacle"],
    "RT-23": [
        _ENDS + "test_no_colour_is_shown_where_no_color_is_set",
        "test_cli.py::test_results_are_on_stdout_and_talk_on_stderr",
        "test_cli.py::test_a_bar_shows_stage_and_remaining_time",
    ],
    "RT-24": [
        _DEVICE + "test_the_default_is_omp_num_threads_then_what_the_process_may_use",
        _DEVICE + "test_cpus_are_those_of_the_affinity_mask_or_of_the_quota",
        _DEVICE + "test_fewer_than_one_thread_is_a_usage_error",
    ],
    "RT-25": [
        _ENDS + "test_the_record_tells_device_threads_and_versions",
        _ENDS + "test_another_number_of_threads_changes_less_than_a_thousandth_of_the_range",
    ],
    "TR-01": [
        _TRAIN + "test_a_step_that_is_not_finite_changes_nothing_and_is_counted",
        _TRAIN + "test_many_such_steps_in_a_row_end_the_run_and_leave_the_good_checkpoint",
        _TRAIN + "test_weights_that_are_not_finite_are_never_saved",
    ],
    "TR-02": ["trainer/test_tasks.py::test_a_scale_of_fp16_losses_below_one_ends_the_run"],
    "TR-03": [
        _TRAIN + "test_a_damaged_checkpoint_is_passed_over_and_named",
        _TRAIN + "test_a_run_without_a_sound_checkpoint_is_not_begun_again",
        _TRAIN + "test_a_kill_between_the_two_renames_of_a_save_loses_two_steps_and_no_bit",
    ],
    "TR-04": [
        _TRAIN + "test_a_run_that_crashed_and_went_on_is_bit_equal",
        _TRAIN + "test_a_run_that_is_killed_again_and_again_is_bit_equal",
    ],
    "TR-05": [
        _TRAIN + "test_another_config_is_refused_with_every_difference",
        _TRAIN + "test_other_data_and_code_are_refused_and_an_allowed_change_is_recorded",
    ],
    "TR-06": [
        _TRAIN + "test_an_unreadable_case_is_replaced_and_logged",
        _TRAIN + "test_many_unreadable_cases_end_the_run",
        _PREPARE + "test_bad_files_are_quarantined_and_the_rest_goes_on",
        _PREPARE + "test_too_many_bad_cases_stop_the_preparation",
        _PREPARE + "test_a_fault_that_nobody_foresaw_is_quarantined_too",
    ],
    "TR-07": [
        "corpus/test_cache.py::test_a_half_written_case_is_refused_on_opening",
        "corpus/test_cache.py::test_a_flipped_bit_is_found_by_verifying",
        _PREPARE + "test_a_half_written_case_is_never_used",
        _PREPARE + "test_a_second_run_keeps_what_is_done",
    ],
    "TR-08": [
        _PREPARE + "test_a_copied_brain_on_two_sides_is_refused",
        "corpus/test_leaks.py::test_a_copy_is_recognised",
        "corpus/test_leaks.py::test_other_brains_are_not_taken_for_copies",
    ],
    "TR-09": [_PREPARE + "test_a_copied_brain_inside_a_split_is_warned_of"],
    "TR-10": [
        _PREPARE + "test_the_same_file_in_dev_and_train_is_refused",
        "corpus/test_splitting.py::test_a_person_in_two_splits_is_refused",
    ],
    "TR-11": [_PREPARE + "test_a_mask_of_healthy_tissue_on_the_lesion_is_refused"],
    "TR-12": ["test_benchmark.py::test_a_method_that_looks_into_the_hole_stops_the_benchmark"],
    "TR-13": "one code computes all scores; tests/test_metrics.py compares it with the official package's",
    "TR-14": [_TRAIN + "test_a_signal_finishes_the_step_and_saves"],
    "TR-15": [_PROCESSES + "test_a_run_that_stands_still_ends_with_75_and_leaves_the_stacks"],
    "TR-16": [
        _TRAIN + "test_workers_see_what_one_process_sees",
        _PROCESSES + "test_devices_together_see_the_cases_that_one_sees_by_accumulating",
    ],
    "WE-01": [
        _PAGE_SERVER + "test_one_line_is_printed_and_a_signal_leaves_nothing_behind",
        _PAGE_SERVER + "test_another_address_is_warned_of_and_still_needs_the_token",
    ],
    "WE-02": [
        _GUARD + "test_other_hosts_are_refused_even_with_the_token",
        _GUARD + "test_headers_that_are_missing_or_stand_there_twice_are_refused",
        _GUARD + "test_web_sockets_are_closed",
    ],
    "WE-03": [
        _GUARD + "test_changes_from_elsewhere_are_refused_even_with_the_token",
        _GUARD + "test_reading_from_another_page_is_refused_and_a_link_to_the_page_works",
        _PAGE_API + "test_reading_changes_nothing",
    ],
    "WE-04": [
        _GUARD + "test_without_the_token_nothing_is_told",
        _GUARD + "test_the_token_is_long_new_each_time_and_compared_in_constant_time",
        _PAGE_SERVER + "test_the_browser_is_given_a_file_and_not_the_token",
    ],
    "WE-05": [_GUARD + "test_no_answer_lets_another_page_read_it"],
    "WE-06": [
        _PAGE_API + "test_only_the_files_of_the_page_are_served",
        _PAGE_API + "test_ids_that_were_never_given_out_are_refused",
        "review/test_cohort.py::test_a_link_that_leads_out_of_the_cohort_is_not_served",
        "review/test_cohort.py::test_every_case_has_a_file_of_its_own_in_the_folder_of_verdicts",
    ],
    "WE-07": [
        _PAGE_API + "test_uploads_are_counted",
        _PAGE_API + "test_a_body_that_stops_coming_is_given_up",
    ],
    "WE-08": [_GUARD + "test_parts_of_files_are_not_served"],
    "WE-09": [
        _PAGE_JOBS + "test_one_runs_two_wait_and_the_next_is_refused_with_its_position",
        _PAGE_JOBS + "test_fifty_clicks_are_one_job",
    ],
    "WE-10": [
        _PAGE_API + "test_names_are_text_or_are_refused",
        _GUARD + "test_every_answer_forbids_framing_keeping_guessing_and_telling",
    ],
    "WE-11": [_PAGE_API + "test_names_are_text_or_are_refused"],
    "WE-12": "the report is one file without a network; tests/report/test_page.py and test_page_in_browser.py hold it",
    "WE-13": [_PAGE_API + "test_the_log_names_nobody"],
    "WE-14": [
        _PAGE_JOBS + "test_a_job_outlives_the_tab_that_asked_for_it",
        _PAGE_JOBS + "test_a_killed_process_is_a_failed_job_and_the_next_one_gets_a_new_process",
        _PAGE_JOBS + "test_a_process_ends_when_its_server_is_gone",
        _PAGE_SERVER + "test_a_port_that_is_taken_is_refused_before_anything_is_read",
        _PAGE_SERVER + "test_an_idle_server_ends",
    ],
    "WE-15": [_GUARD + "test_every_answer_forbids_framing_keeping_guessing_and_telling"],
    "WE-16": [_PAGE_API + "test_nothing_describes_the_routes"],
}


def expected_rows() -> list[str]:
    """The rows that concern fills, preparing data, training and the review page; others have tests of their own."""
    numbers = {
        "IN": range(1, 43),
        "MA": range(1, 21),
        "MO": range(1, 16),
        "RT": range(1, 26),
        "TR": range(1, 17),
        "WE": range(1, 17),
    }
    return [f"{part}-{number:02d}" for part, every in numbers.items() for number in every]


@cache
def functions_of(path: Path) -> dict[str, str]:
    """Name -> source of every test function of a file, of its classes too."""
    source = path.read_text(encoding="utf-8")
    found = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert len({node.name for node in found}) == len(found), f"{path.name} has two tests of one name"
    return {node.name: ast.get_source_segment(source, node) or "" for node in found}


def test_no_row_is_missing_and_the_rows_are_in_order() -> None:
    assert list(ROWS) == expected_rows()


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_a_test_that_is_there_or_a_reason(row: str) -> None:
    tests = ROWS[row]
    if isinstance(tests, str):
        assert len(tests.split()) > 5, "a reason is a sentence"
        return
    assert tests
    for test in tests:
        file, name = test.split("::")
        assert name in functions_of(HERE / file), f"{test} is not there"


@pytest.mark.parametrize("row", [row for row, tests in ROWS.items() if not isinstance(tests, str)])
def test_the_tests_of_a_row_speak_of_it(row: str) -> None:
    """One of them at least names the row, in its docstring, its assertions or the table that it runs through."""
    files = {HERE / test.split("::")[0] for test in ROWS[row]}
    assert any(row in file.read_text(encoding="utf-8") for file in files), f"no test file of {row} names it"
